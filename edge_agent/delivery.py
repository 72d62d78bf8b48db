"""Drafts to spool to broker, in one thread that inference never waits for.

Everything that happens (a draft offered, a connection made or lost, an acknowledgement) arrives
in one mailbox and is handled in order. A message leaves the spool only when the broker has
acknowledged it; after a lost connection sending begins again with the oldest one left.
"""

from __future__ import annotations

import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from edge_agent.errors import BrokerError
from edge_agent.events import DefectEvent, GapEvent, envelope
from edge_agent.frame import GapReason
from edge_agent.publish import Connected, Lost, Note, Reached
from edge_agent.spool import Message, Spool

_log = logging.getLogger(__name__)

_TICK_S = 0.25
_ACK_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 3.0
"""From a socket that is open to the broker's word that we may speak."""
_MAX_BACKOFF_S = 30.0


class Link(Protocol):
    """What delivery needs of a connection (publish.Connection)."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Draft:
    """An event or gap that has no number yet; numbers are given in the order of the spool."""

    data: DefectEvent | GapEvent
    captured_utc_ns: int


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    events_spooled: int
    events_published: int
    messages_pending: int
    messages_dropped: int
    overflow_gaps: int
    connected: bool
    spool: Literal["disk", "memory"]


class Delivery(threading.Thread):
    def __init__(
        self,
        *,
        open_spool: Callable[[], Spool],
        connect: Callable[[Callable[[Note], None], bool], Link],
        topic_base: str,
        birth: bytes,
        death: bytes,
        max_drafts: int,
        window: int,
        mqtt311: bool = False,
    ) -> None:
        """`open_spool` is called in the thread; `connect(tell, mqtt311)` opens a connection.

        `birth` and `death` are the retained state documents for online and offline.
        """
        super().__init__(name="delivery", daemon=True)
        self._open_spool, self._connect = open_spool, connect
        self._base, self._birth, self._death = topic_base, birth, death
        self._max_drafts, self._window, self._mqtt311 = max_drafts, window, mqtt311
        self._mail: queue.SimpleQueue[Draft | tuple[int, Note] | None] = queue.SimpleQueue()
        self._refused: queue.SimpleQueue[Draft] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._drain_until_s = 0.0
        self.progress_s = time.monotonic()
        """When the loop last came round; for the watchdog."""
        self._health: bytes | None = None
        self._link: Link | None = None
        self._link_number = 0
        self._online = False
        self._answer_by_s = math.inf
        self._retry_at_s, self._backoff_s = 0.0, 0.5
        self._in_flight: dict[int, tuple[int, str, float]] = {}  # mid: (spool id, kind, sent at)
        self._cursor = self._replay_until = 0
        self._seq = 0
        self._spooled = self._published = self._dropped = self._overflow_gaps = 0
        self._pending = 0
        self._medium: Literal["disk", "memory"] = "disk"

    # Called from other threads.

    def offer(self, draft: Draft) -> bool:
        """Hand over a draft without waiting; False when the mailbox is full (it is declared)."""
        if self._mail.qsize() >= self._max_drafts:
            self._refused.put(draft)
            return False
        self._mail.put(draft)
        return True

    def set_health(self, document: bytes) -> None:
        """The latest health document; published when connected, older ones are forgotten."""
        self._health = document

    def counts(self) -> DeliveryCounts:
        return DeliveryCounts(
            self._spooled,
            self._published,
            self._pending + (self._mail.qsize() if self.is_alive() else 0),
            self._dropped,
            self._overflow_gaps,
            self._online,
            self._medium,
        )

    def stop(self, drain_s: float) -> None:
        """Spool what was offered, publish for at most `drain_s` seconds more, say offline, end."""
        self._drain_until_s = time.monotonic() + drain_s
        self._stopping.set()
        self._mail.put(None)

    # The thread.

    def run(self) -> None:
        spool = self._open_spool()
        try:
            while not self._finished(spool):
                self._receive(spool)
                self._keep_connected()
                self._send(spool)
                self._pending, self._medium = len(spool), spool.medium
                self.progress_s = time.monotonic()
        finally:
            self._hang_up(say_offline=True)
            self._pending = len(spool)
            spool.close()

    def _finished(self, spool: Spool) -> bool:
        if not self._stopping.is_set() or not self._mail.empty() or not self._refused.empty():
            return False
        done = len(spool) == 0 and not self._in_flight and self._health is None
        hopeless = not self._online and self._retry_at_s > self._drain_until_s
        return done or hopeless or time.monotonic() > self._drain_until_s

    def _receive(self, spool: Spool) -> None:
        """Wait for mail at most a tick, then take all there is: one commit for all of it."""
        drafts: list[Draft] = []
        acknowledged: list[int] = []
        try:
            mail = self._mail.get(timeout=_TICK_S)
            while True:
                if isinstance(mail, Draft):
                    drafts.append(mail)
                elif mail is not None and mail[0] == self._link_number:
                    self._note(mail[1], spool, acknowledged)
                mail = self._mail.get_nowait()
        except queue.Empty:
            pass
        if acknowledged:
            spool.delete(acknowledged)
        refused: list[Draft] = []
        while not self._refused.empty():
            refused.append(self._refused.get_nowait())
        if refused:
            self._dropped += len(refused)
            why = f"{len(refused)} messages dropped: more than {self._max_drafts} were waiting"
            drafts.append(self._overflow(refused[0], why))
        if drafts:
            self._store(spool, drafts)

    def _store(self, spool: Spool, drafts: list[Draft]) -> None:
        gone = spool.append([self._numbered(d) for d in drafts])
        self._spooled += sum(isinstance(d.data, DefectEvent) for d in drafts)
        if gone:
            self._dropped += len(gone)
            why = f"{len(gone)} messages dropped, oldest first: the spool is full"
            # What gives way to this one is counted, but not declared again: that has no end.
            self._dropped += len(spool.append([self._numbered(self._overflow(drafts[0], why))]))

    def _overflow(self, near: Draft, detail: str) -> Draft:
        self._overflow_gaps += 1
        data = near.data
        gap = GapEvent(
            agent=data.agent,
            site=data.site,
            line=data.line,
            coil=data.coil,
            boot_id=data.boot_id,
            seq=0,
            replayed=False,
            frame_id=data.frame_id,
            first_line=data.first_line,
            captured_monotonic_ns=data.captured_monotonic_ns,
            line_count=None,
            reason=GapReason.SPOOL_OVERFLOW,
            detail=detail,
        )
        return Draft(gap, near.captured_utc_ns)

    def _numbered(self, draft: Draft) -> Message:
        self._seq += 1
        data = msgspec.structs.replace(draft.data, seq=self._seq)
        kind = "event" if isinstance(data, DefectEvent) else "gap"
        payload = msgspec.json.encode(envelope(data, draft.captured_utc_ns))
        return Message(kind, data.boot_id, payload)

    def _note(self, note: Note, spool: Spool, acknowledged: list[int]) -> None:
        if isinstance(note, Reached):
            self._answer_by_s = time.monotonic() + _ANSWER_TIMEOUT_S
        elif isinstance(note, Connected):
            self._online, self._backoff_s, self._answer_by_s = True, 0.5, math.inf
            self._cursor, self._replay_until = 0, spool.last_id
            _log.info("broker: connected, %d messages waiting", len(spool))
            self._publish_now("state", self._birth)
        elif isinstance(note, Lost):
            if note.wants_mqtt311 and not self._mqtt311:
                self._mqtt311, self._backoff_s = True, 0.0
            self._lose(note.reason)
        else:
            spool_id, kind, _ = self._in_flight.pop(note.mid, (0, "", 0.0))
            if note.refused is not None:
                # Kept: it is sent again over the next connection.
                self._lose(f"publish refused: {note.refused}")
            elif spool_id:
                acknowledged.append(spool_id)
                self._published += kind == "event"

    def _keep_connected(self) -> None:
        now = time.monotonic()
        if self._in_flight and now - min(s for *_, s in self._in_flight.values()) > _ACK_TIMEOUT_S:
            self._lose(f"no acknowledgement for {_ACK_TIMEOUT_S:.0f} s")
        if now > self._answer_by_s:
            # A broker that knows one version only may leave the other without an answer: amqtt
            # takes an MQTT 5 CONNECT for 3.1.1 and waits for the rest of it.
            self._mqtt311 = not self._mqtt311
            self._lose(f"no answer to CONNECT for {_ANSWER_TIMEOUT_S:.0f} s")
        if self._link is None and now >= self._retry_at_s and not self._over():
            self._link_number += 1
            number = self._link_number
            try:
                self._link = self._connect(
                    lambda note: self._mail.put((number, note)), self._mqtt311
                )
            except (BrokerError, OSError, ValueError) as error:
                self._lose(str(error))

    def _over(self) -> bool:
        return self._stopping.is_set() and time.monotonic() > self._drain_until_s

    def _lose(self, reason: str) -> None:
        self._hang_up(say_offline=False)
        # Jitter, so that a plant's agents do not all come back in the same second.
        wait_s = self._backoff_s * random.uniform(0.7, 1.3)  # noqa: S311  not a secret
        self._retry_at_s = time.monotonic() + wait_s
        self._backoff_s = min(max(self._backoff_s * 2, 0.5), _MAX_BACKOFF_S)
        _log.warning("broker: %s; next try in %.1f s", reason, wait_s)

    def _hang_up(self, *, say_offline: bool) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        if say_offline and self._online:
            link.publish(f"{self._base}/state", self._death, retain=True)
        self._online, self._answer_by_s = False, math.inf
        self._in_flight.clear()
        self._link_number += 1  # what the old client still says is for nobody
        link.close()

    def _publish_now(self, topic: str, payload: bytes) -> None:
        """A retained document: not spooled, since only the newest counts."""
        if self._link:
            mid = self._link.publish(f"{self._base}/{topic}", payload, retain=True)
            if mid is not None:
                self._in_flight[mid] = (0, topic, time.monotonic())

    def _send(self, spool: Spool) -> None:
        if not self._online or self._link is None:
            return
        health, self._health = self._health, None
        if health is not None:
            self._publish_now("health", health)
        room = max(0, self._window - len(self._in_flight))
        for stored in spool.after(self._cursor, room):
            payload = stored.message.payload
            if stored.id <= self._replay_until:
                payload = _replayed(payload)
            mid = self._link.publish(f"{self._base}/{stored.message.kind}", payload)
            if mid is None:
                self._lose("the connection takes no more messages")
                return
            self._in_flight[mid] = (stored.id, stored.message.kind, time.monotonic())
            self._cursor = stored.id


def _replayed(payload: bytes) -> bytes:
    try:
        tree = msgspec.json.decode(payload)
        tree["data"]["replayed"] = True
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        # Damaged on the disk where SQLite cannot see it. It goes out as it is: subscribers refuse
        # it by the schema, and the messages behind it must not wait for ever.
        _log.error("spool: a message that is no event any more: %s", error)
        return payload
    return msgspec.json.encode(tree)
