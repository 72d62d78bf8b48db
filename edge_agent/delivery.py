"""Drafts to spool to broker, in one thread that inference never waits for.

Everything that happens (a draft offered, a connection made or lost, an acknowledgement) arrives
in one mailbox and is handled in order. A message leaves the spool only when the broker has
acknowledged it; after a lost connection sending begins again with the oldest one left. What the
broker refuses for good is set aside, and whatever does not arrive is declared in a gap.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from edge_agent import drafts, replay
from edge_agent.backoff import Backoff
from edge_agent.drafts import Draft
from edge_agent.errors import BrokerError
from edge_agent.events import DefectEvent, Dropped, GapEvent, StateDocument
from edge_agent.frame import GapReason
from edge_agent.publish import (
    Acknowledged,
    Connected,
    Incoming,
    Lost,
    Note,
    NotSubscribed,
    Reached,
)
from edge_agent.refusal import TAKEN_OVER, Refusals
from edge_agent.spool import Message, Spool, Written
from edge_agent.store import PICTURE

__all__ = ["Delivery", "DeliveryCounts", "Draft", "Link"]

_log = logging.getLogger(__name__)

_TICK_S = 0.25
_ACK_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 3.0
"""From a socket that is open to the broker's word that we may speak."""
_CONNECT_TIMEOUT_S = 15.0
"""For all that lies before: a name server may hang for minutes."""
_FLUSH_S = 3.0
_MAX_INCOMING = 100
"""Messages to us that may wait to be handled; whoever sends more is not heard."""
_SETTLE_S, _SETTLE_COUNT = 0.2, 500
"""Acknowledgements are written together: one sync of the disk for many."""
_LOOK_S = 2.0
"""How often files that may have changed are looked at."""
_PACKET_OVERHEAD_BYTES = 32
_REST_S, _MAX_RESTING = 30.0, 100
"""A refused gap that declares refused messages is tried again; so many are at a time."""


class Link(Protocol):
    """What delivery needs of a connection (publish.Connection)."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation_data: bytes | None = None,
    ) -> int | None: ...

    def close(self, flush_s: float = 0.0) -> None: ...

    def stale(self) -> bool: ...


class Connect(Protocol):
    """Opens a connection whose last will, on the topic `state`, is `will`."""

    def __call__(self, tell: Callable[[Note], None], mqtt311: bool, will: bytes) -> Link: ...


@dataclass(frozen=True, slots=True)
class _Said:
    """A message that is not spooled."""

    topic: str
    payload: bytes
    correlation_data: bytes | None


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """Sent and not acknowledged; `spool_id` is 0 for what is not spooled."""

    spool_id: int
    message: Message
    sent_s: float


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """`loss_gaps`: declared losses of messages, by reason. `messages_refused`: set aside."""

    events_spooled: int
    events_published: int
    messages_pending: int
    messages_dropped: int
    messages_refused: int
    loss_gaps: dict[str, int]
    alarms: tuple[str, ...]
    connected: bool
    spool: Literal["disk", "memory"]


class Delivery(threading.Thread):
    def __init__(
        self,
        *,
        open_spool: Callable[[], Spool],
        connect: Connect,
        topic_base: str,
        state: StateDocument,
        max_drafts: int,
        window: int,
        mqtt311: bool = False,
        on_incoming: Callable[[Incoming], None] = lambda _: None,
        replay_file: Path | None = None,
    ) -> None:
        """`open_spool` is called in the thread; `connect` opens a connection.

        `state` is the birth document; what the broker says when we are gone is the same, offline.
        `on_incoming` is called in the thread for what comes in on subscribed topics, retained
        messages left out; it must return at once. `replay_file`: where a wish may lie (replay.py).
        """
        super().__init__(name="delivery", daemon=True)
        self._open_spool, self._connect = open_spool, connect
        self._base, self._on_incoming, self._replay_file = topic_base, on_incoming, replay_file
        self._state, self._state_sent = state, False
        self._max_drafts, self._max_window, self._mqtt311 = max_drafts, window, mqtt311
        self._mail: queue.SimpleQueue[Draft | _Said | tuple[int, Note] | None] = queue.SimpleQueue()
        self._refused_lock = threading.Lock()
        self._refused: tuple[Draft, int] | None = None  # the first that found no room, how many
        self._stopping = threading.Event()
        self._drain_until_s = 0.0
        self.progress_s = time.monotonic()
        """When the loop last came round; for the watchdog."""
        self.publisher_progress_s = self.progress_s
        """When the connection last spoke, or had nothing to say; for the watchdog."""
        self._health: bytes | None = None
        self._near = drafts.nowhere(topic_base, state.boot_id)
        # The connection.
        self._link: Link | None = None
        self._link_number = 0
        self._online = False
        self._answer_by_s = self._retry_at_s = 0.0
        self._look_at_s = 0.0
        self._backoff, self._refusals = Backoff(), Refusals()
        self._limits = Connected()
        self._taken_over = self._version_known = False
        # What is under way.
        self._in_flight: dict[int, _UnderWay] = {}
        self._cursor = self._replay_until = 0
        self._sent: list[int] = []
        self._aside: list[tuple[int, str]] = []
        self._settle_at_s = math.inf
        self._resting: dict[int, float] = {}
        self._losses: list[Draft] = []
        # Counts.
        self._seq = 0
        self._spooled = self._published = self._dropped = 0
        self._loss_gaps: Counter[str] = Counter()
        self._pending = self._refused_count = 0
        self._spool_alarms: tuple[str, ...] = ()
        self._medium: Literal["disk", "memory"] = "disk"

    # Called from other threads.

    def offer(self, draft: Draft) -> bool:
        """Hand over a draft without waiting; False when the mailbox is full (it is declared)."""
        if self._mail.qsize() >= self._max_drafts:
            with self._refused_lock:
                first, count = self._refused or (draft, 0)
                self._refused = first, count + 1
            return False
        self._mail.put(draft)
        return True

    def set_health(self, document: bytes) -> None:
        """The latest health document; published when connected, older ones are forgotten."""
        self._health = document

    def set_state(self, document: StateDocument) -> None:
        """The state document from now on: retained, sent when connected, and at each connection."""
        self._state, self._state_sent = document, False
        self._mail.put(None)

    def say(self, topic: str, payload: bytes, *, correlation_data: bytes | None = None) -> None:
        """Publish on a whole topic, not spooled: a reply. Dropped where we are not connected."""
        self._mail.put(_Said(topic, payload, correlation_data))

    def restart_publisher(self) -> None:
        """Give the connection up for a new one. It need not answer for that."""
        self._mail.put((self._link_number, Lost("the connection's thread stands still")))

    def counts(self) -> DeliveryCounts:
        return DeliveryCounts(
            self._spooled,
            self._published,
            self._pending + (self._mail.qsize() if self.is_alive() else 0),
            self._dropped,
            self._refused_count,
            dict(sorted(self._loss_gaps.items())),
            self._alarms(),
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
            if spool.set_aside:
                self._declare_loss(spool.set_aside)
            while not self._finished(spool):
                self._receive(spool)
                self._keep_connected()
                self._send(spool)
                self._look_around(spool)
                self._see(spool)
                self._mark()
        finally:
            self._say_goodbye()
            spool.hurry()
            self._account(spool.tend(self._declare))
            self._store(spool, self._losses)
            self._see(spool)
            spool.close()

    def _mark(self) -> None:
        self.progress_s = time.monotonic()
        if self._link is None or (self._online and not self._in_flight):
            self.publisher_progress_s = self.progress_s

    def _finished(self, spool: Spool) -> bool:
        if not self._stopping.is_set() or not self._mail.empty() or self._refused:
            return False
        settled = len(self._sent) + len(self._aside) + len(self._resting) == len(spool)
        settled = settled and not self._losses
        done = settled and not self._in_flight and self._health is None
        hopeless = not self._online and self._retry_at_s > self._drain_until_s
        return done or hopeless or time.monotonic() > self._drain_until_s

    def _see(self, spool: Spool) -> None:
        self._pending, self._medium = len(spool), spool.medium
        self._refused_count, self._spool_alarms = spool.aside, spool.alarms

    def _alarms(self) -> tuple[str, ...]:
        if not self._taken_over:
            return self._spool_alarms
        word = f"broker: another client connects as {self._base}; is this agent's name given twice?"
        return (word, *self._spool_alarms)

    # The mailbox and the spool.

    def _receive(self, spool: Spool) -> None:
        """Wait for mail at most a tick, then take all there is: one commit for all of it."""
        new: list[Draft] = []
        try:
            mail = self._mail.get(timeout=_TICK_S)
            while True:
                if isinstance(mail, Draft):
                    new.append(mail)
                elif isinstance(mail, _Said):
                    self._say(mail)
                elif mail is not None and mail[0] == self._link_number:
                    self._note(mail[1], spool)
                mail = self._mail.get_nowait()
        except queue.Empty:
            pass
        with self._refused_lock:
            refused, self._refused = self._refused, None
        if refused:
            first, count = refused
            self._dropped += count
            why = f"{count} messages dropped: more than {self._max_drafts} were waiting"
            what = Dropped(messages=count, pictures=0, ranges=())
            new.append(drafts.lost(first, GapReason.SPOOL_OVERFLOW, why, what))
        # In one transaction with the setting aside that they declare.
        new[:0], self._losses = self._losses, []
        if new:
            self._store(spool, new)
        elif time.monotonic() >= self._settle_at_s or len(self._sent) >= _SETTLE_COUNT:
            self._settle(spool)

    def _store(self, spool: Spool, new: Sequence[Draft]) -> None:
        self._near = new[-1] if new else self._near
        messages: list[Message] = []
        size = 0
        for draft in new:
            if size > spool.max_message_bytes // 2:  # a part that finds room whatever it takes
                self._settle(spool, messages)
                messages, size = [], 0
            self._seq += 1
            made = drafts.messages(draft, self._seq, spool.max_message_bytes // 2)
            messages += made
            size += sum(len(one.payload) for one in made)
            self._spooled += made[0].kind == "event"
            if isinstance(draft.data, GapEvent) and draft.data.reason in _OF_MESSAGES:
                self._loss_gaps[draft.data.reason.value] += 1
            elif isinstance(draft.data, DefectEvent) and made[0].kind == "gap":
                self._loss_gaps[GapReason.SPOOL_OVERFLOW.value] += 1
                self._dropped += 1
        self._settle(spool, messages)

    def _settle(self, spool: Spool, messages: Sequence[Message] = ()) -> None:
        """Write down what arrived, what the broker took and what it refused."""
        self._settle_at_s = math.inf
        sent, self._sent = self._sent, []
        aside, self._aside = self._aside, []
        if messages or sent or aside:
            self._account(spool.write(messages, sent=sent, aside=aside, declare=self._declare))

    def _account(self, written: Written) -> None:
        self._seq += written.declarations
        self._dropped += written.dropped
        if written.declarations:
            self._loss_gaps[GapReason.SPOOL_OVERFLOW.value] += written.declarations

    def _declare(self, gone: Sequence[Message], before: int) -> Message:
        gap = drafts.overflow(self._near, gone)
        return drafts.messages(gap, self._seq + 1 + before, 1 << 30)[0]

    # The connection.

    def _note(self, note: Note, spool: Spool) -> None:
        self.publisher_progress_s = time.monotonic()
        if isinstance(note, Acknowledged):
            self._acknowledged(note)
        elif isinstance(note, Reached):
            self._answer_by_s = time.monotonic() + _ANSWER_TIMEOUT_S
        elif isinstance(note, Connected):
            self._online, self._answer_by_s, self._limits = True, math.inf, note
            self._version_known = True
            self._backoff.connected(time.monotonic())
            self._cursor, self._replay_until = 0, spool.last_id
            self._state_sent = False
            _log.info("broker: connected, %d messages waiting", len(spool))
        elif isinstance(note, Lost):
            if note.wants_mqtt311 and not self._mqtt311:
                self._mqtt311 = True
                self._lose(note.reason, at_once=True)
            else:
                self._ended(note)
        elif isinstance(note, NotSubscribed):
            _log.error("broker: we may not subscribe to %s: %s", note.topic, note.reason)
        else:
            self._take_in(note)

    def _acknowledged(self, note: Acknowledged) -> None:
        one = self._in_flight.pop(note.mid, None)
        if one is None:
            return
        if note.refused is None:
            if one.spool_id:
                self._refusals.sent(one.spool_id)
                self._resting.pop(one.spool_id, None)
                self._sent.append(one.spool_id)
                self._settle_at_s = min(self._settle_at_s, time.monotonic() + _SETTLE_S)
                self._published += one.message.kind == "event"
        elif not one.spool_id:
            _log.error("broker: %s refused: %s", one.message.kind, note.refused)
        elif self._refusals.refused(one.spool_id, note.code):
            if drafts.says_refused(one.message) and len(self._resting) < _MAX_RESTING:
                # It declares what else was refused: set aside, that would be lost without a word;
                # declared in its turn, there would be no end.
                self._resting[one.spool_id] = time.monotonic() + _REST_S
                return
            self._put_aside(one.spool_id, one.message, f"the broker says: {note.refused}")
        else:
            # Kept: it is sent again over the next connection.
            self._lose(f"publish refused: {note.refused}")

    def _declare_loss(self, file: str) -> None:
        why = f"the spool's file was damaged and is set aside as {file}"
        self._losses.append(drafts.lost(self._near, GapReason.SPOOL_LOSS, why, None))

    def _put_aside(self, spool_id: int, message: Message, why: str) -> None:
        _log.error("spool: message %s set aside: %s", message.seq or message.kind, why)
        self._resting.pop(spool_id, None)
        self._aside.append((spool_id, why))
        self._settle_at_s = 0.0
        gap = drafts.refused(message, self._near, why)
        if gap:
            self._losses.append(gap)

    def _ended(self, note: Lost) -> None:
        spooled = [one for one in self._in_flight.values() if one.spool_id]
        if self._online and self._refusals.ended([o.spool_id for o in spooled], note.code):
            self._put_aside(spooled[0].spool_id, spooled[0].message, f"it ends: {note.reason}")
        self._lose(note.reason, taken_over=note.code == TAKEN_OVER)

    def _keep_connected(self) -> None:
        now = time.monotonic()
        if self._in_flight and now - next(iter(self._in_flight.values())).sent_s > _ACK_TIMEOUT_S:
            self._lose(f"no acknowledgement for {_ACK_TIMEOUT_S:.0f} s")
        if self._link and not self._online and now > self._answer_by_s:
            # A broker that knows one version only may leave the other without an answer: amqtt
            # takes an MQTT 5 CONNECT for 3.1.1 and waits for the rest of it. Of one that has spoken
            # to us silence says nothing: the link is half-open, and 3.1.1 has no reason codes.
            self._mqtt311 ^= not self._version_known
            self._lose("no answer to CONNECT")
        if self._taken_over and self._online and self._backoff.stable(now):
            self._taken_over = False
        if self._link is None and now >= self._retry_at_s and not self._over():
            self._link_number += 1
            number = self._link_number
            self._answer_by_s = now + _CONNECT_TIMEOUT_S
            try:
                self._link = self._connect(
                    lambda note: self._told(number, note), self._mqtt311, self._document("offline")
                )
            except (BrokerError, OSError, ValueError) as error:
                self._lose(str(error))

    def _told(self, number: int, note: Note) -> None:
        """In paho's thread: put it into the mailbox, no more."""
        if isinstance(note, Incoming) and self._mail.qsize() > self._max_drafts + _MAX_INCOMING:
            return
        self._mail.put((number, note))

    def _over(self) -> bool:
        return self._stopping.is_set() and time.monotonic() > self._drain_until_s

    def _lose(self, reason: str, *, at_once: bool = False, taken_over: bool = False) -> None:
        self._hang_up()
        now = time.monotonic()
        wait_s = self._backoff.lost(now, at_once=at_once, taken_over=taken_over)
        self._retry_at_s = now + wait_s
        if taken_over:
            self._taken_over = True
            _log.error("%s", self._alarms()[0])
        _log.warning("broker: %s; next try in %.1f s", reason, wait_s)

    def _say_goodbye(self) -> None:
        """Offline, acknowledged, and then the end: what is still under way would bring the will."""
        until_s = time.monotonic() + _FLUSH_S
        mid = None
        if self._link and self._online:
            topic = f"{self._base}/state"
            mid = self._link.publish(topic, self._document("offline"), retain=True)
        while mid is not None and time.monotonic() < until_s:
            try:
                mail = self._mail.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if isinstance(mail, tuple) and mail[0] == self._link_number:
                if isinstance(mail[1], Lost):
                    break
                if isinstance(mail[1], Acknowledged) and mail[1].mid == mid:
                    break
        self._hang_up(_FLUSH_S)

    def _hang_up(self, flush_s: float = 0.0) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        self._online = False
        self._in_flight.clear()
        self._link_number += 1  # what the old client still says is for nobody
        link.close(flush_s)

    def _document(self, state: Literal["online", "offline"]) -> bytes:
        document = self._state
        if state == "offline":
            # A will is spoken by the broker, maybe long after the bundle has changed.
            document = msgspec.structs.replace(
                document, state=state, bundle=None, inspecting=False, update=None
            )
        return msgspec.json.encode(document)

    def _take_in(self, message: Incoming) -> None:
        if message.topic == f"{self._base}/state":
            # The will of an earlier connection, which the broker took for alive, came after our
            # birth document: say that once more.
            if b'"offline"' in message.payload:
                self._state_sent = False
        elif message.retained:
            _log.warning("broker: a retained message on %s is not for now", message.topic)
        else:
            self._on_incoming(message)

    # What is sent.

    def _look_around(self, spool: Spool) -> None:
        """Things that are looked at now and then: files that may have changed, the disk."""
        now = time.monotonic()
        if now < self._look_at_s:
            return
        self._look_at_s = now + _LOOK_S
        before = spool.set_aside
        self._account(spool.tend(self._declare))
        if spool.set_aside != before:
            self._declare_loss(spool.set_aside)
        choice = replay.take(self._replay_file) if self._replay_file else None
        if choice:
            _log.info("spool: %d messages to be sent again", spool.send_again(choice))
            self._cursor = 0
        if self._online and self._link and self._link.stale():
            self._lose("certificates or passwords have changed", at_once=True)

    def _say(self, said: _Said) -> None:
        if not self._link or not self._online:
            return
        size = len(said.payload) + len(said.topic.encode()) + len(said.correlation_data or b"")
        most = self._limits.max_packet_bytes
        if most and size + _PACKET_OVERHEAD_BYTES > most:  # it would end the connection
            _log.error("broker: %s: %d bytes, the broker takes %d", said.topic, size, most)
            return
        mid = self._link.publish(said.topic, said.payload, correlation_data=said.correlation_data)
        self._not_spooled(mid, said.topic)

    def _publish_now(self, topic: str, payload: bytes) -> None:
        """A retained document: not spooled, since only the newest counts."""
        if self._link:
            mid = self._link.publish(f"{self._base}/{topic}", payload, retain=True)
            self._not_spooled(mid, topic)

    def _not_spooled(self, mid: int | None, topic: str) -> None:
        if mid is not None:
            self._in_flight[mid] = _UnderWay(0, Message(topic, "", b""), time.monotonic())

    @property
    def _window(self) -> int:
        if self._refusals.careful:
            return 1
        return min(self._max_window, self._limits.receive_maximum or self._max_window)

    def _send(self, spool: Spool) -> None:
        if not self._online or self._link is None:
            return
        if not self._state_sent:
            self._state_sent = True
            self._publish_now("state", self._document("online"))
        health, self._health = self._health, None
        if health is not None:
            self._publish_now("health", health)
        room = self._window - len(self._in_flight)
        if room <= 0:
            return
        held = {one.spool_id for one in self._in_flight.values()}
        now = time.monotonic()
        held.update(i for i, until_s in self._resting.items() if now < until_s)
        due = min(self._resting.keys() - held, default=None)
        if due is not None:
            self._cursor = min(self._cursor, due - 1)
        held.update(self._sent, (i for i, _ in self._aside))
        found = spool.after(self._cursor, room + sum(i > self._cursor for i in held))
        if due is not None and (not found or found[0].id > due):
            del self._resting[due]  # it gave way, declared like any other
        for stored in [one for one in found if one.id not in held][:room]:
            if not self._send_one(self._link, stored.id, stored.message, stored.again):
                return

    def _send_one(self, link: Link, spool_id: int, message: Message, again: bool) -> bool:
        payload, topic = message.payload, f"{self._base}/{message.kind}"
        again = again or spool_id <= self._replay_until or spool_id in self._resting
        if again and not message.kind.startswith(PICTURE):
            payload = drafts.replayed(payload)
        size = len(payload) + len(topic.encode()) + _PACKET_OVERHEAD_BYTES
        self._cursor = spool_id
        if self._limits.max_packet_bytes and size > self._limits.max_packet_bytes:
            why = f"{size} bytes, the broker takes {self._limits.max_packet_bytes}"
            self._put_aside(spool_id, message, why)
            return True
        mid = link.publish(topic, payload)
        if mid is None:
            self._lose("the connection takes no more messages")
            return False
        self._in_flight[mid] = _UnderWay(spool_id, message, time.monotonic())
        return True


_OF_MESSAGES = frozenset((GapReason.SPOOL_OVERFLOW, GapReason.SPOOL_LOSS, GapReason.REFUSED))
