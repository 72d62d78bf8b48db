"""Drafts to spool to broker, in one thread that inference never waits for.

Everything that happens (a draft offered, a connection made or lost, an acknowledgement) arrives
in one inbox and is handled in order. A message leaves the spool only when the broker has
acknowledged it; after a lost connection sending begins again with the oldest one left. What the
broker refuses for good is set aside, and whatever does not arrive is declared in a gap.

    inbox ▶ books ▶ spool ▶ sender: what is under way, the broker link
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.delivery import losses
from edge_agent.delivery.broker_link import Connect
from edge_agent.delivery.connection_events import Acknowledged, Incoming, Lost
from edge_agent.delivery.drafts import Draft
from edge_agent.delivery.inbox import ConnectionNote, Inbox, UnspooledMessage
from edge_agent.delivery.retained import Retained
from edge_agent.delivery.sender import Sender
from edge_agent.delivery.spool import replay
from edge_agent.delivery.spool.spool import Spool
from edge_agent.delivery.spool_writer import SpoolWriter
from edge_agent.messages.state import StateDocument

__all__ = ["Delivery", "DeliveryCounts", "Draft"]

_log = logging.getLogger(__name__)

_TICK_S = 0.25
_FLUSH_S = 3.0
_LOOK_S = 2.0
"""How often files that may have changed are looked at."""


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
        self._open_spool, self._replay_file = open_spool, replay_file
        self._inbox = Inbox(max_drafts)
        self._retained = Retained(state)
        self._spool_writer = SpoolWriter(losses.nowhere(topic_base, state.boot_id))
        self._sender = Sender(
            connect,
            topic_base=topic_base,
            window=window,
            mqtt311=mqtt311,
            tell=self._inbox.hear,
            on_incoming=on_incoming,
            retained=self._retained,
            spool_writer=self._spool_writer,
        )
        self._stopping = threading.Event()
        self._drain_until_s = self._look_at_s = 0.0
        self.progress_s = time.monotonic()
        """When the loop last came round; for the watchdog."""
        self.publisher_progress_s = self.progress_s
        """When the connection last spoke, or had nothing to say; for the watchdog."""
        # The spool, as it was last seen: it is its thread's alone.
        self._pending = self._refused = 0
        self._spool_alarms: tuple[str, ...] = ()
        self._medium: Literal["disk", "memory"] = "disk"

    # Called from other threads.

    def offer(self, draft: Draft) -> bool:
        """Hand over a draft without waiting; False when the inbox is full (it is declared)."""
        return self._inbox.offer(draft)

    def set_health(self, document: bytes) -> None:
        """The latest health document; published when connected, older ones are forgotten."""
        self._retained.set_health(document)

    def set_state(self, document: StateDocument) -> None:
        """The state document from now on: retained, sent when connected, and at each connection."""
        self._retained.set_state(document)
        self._inbox.wake()

    def say(self, topic: str, payload: bytes, *, correlation_data: bytes | None = None) -> None:
        """Publish on a whole topic, not spooled: a reply. Dropped where we are not connected."""
        self._inbox.say(UnspooledMessage(topic, payload, correlation_data))

    def restart_publisher(self) -> None:
        """Give the connection up for a new one. It need not answer for that."""
        self._inbox.hear(self._sender.number, Lost("the connection's thread stands still"))

    def counts(self) -> DeliveryCounts:
        alarm = self._sender.alarm
        return DeliveryCounts(
            self._spool_writer.spooled,
            self._spool_writer.published,
            self._pending + (len(self._inbox) if self.is_alive() else 0),
            self._spool_writer.dropped,
            self._refused,
            self._spool_writer.loss_gaps(),
            (alarm, *self._spool_alarms) if alarm else self._spool_alarms,
            self._sender.online,
            self._medium,
        )

    def stop(self, drain_s: float) -> None:
        """Spool what was offered, publish for at most `drain_s` seconds more, say offline, end."""
        self._drain_until_s = time.monotonic() + drain_s
        self._stopping.set()
        self._inbox.wake()

    # The thread.

    def run(self) -> None:
        spool = self._open_spool()
        try:
            if spool.set_aside:
                self._spool_writer.file_lost(spool.set_aside)
            while not self._finished(spool):
                self._receive(spool)
                self._sender.keep_connected(may_connect=not self._over())
                self._sender.send(spool)
                self._look_around(spool)
                self._see(spool)
                self._mark()
        finally:
            self._say_goodbye()
            spool.hurry()
            self._spool_writer.tend(spool)
            self._spool_writer.close(spool)
            self._see(spool)
            spool.close()

    def _mark(self) -> None:
        self.progress_s = time.monotonic()
        if self._sender.rests:
            self.publisher_progress_s = self.progress_s

    def _finished(self, spool: Spool) -> bool:
        if not self._stopping.is_set() or not self._inbox.is_empty:
            return False
        done = self._sender.is_through(spool)
        return done or self._sender.is_hopeless(self._drain_until_s) or self._over()

    def _over(self) -> bool:
        return self._stopping.is_set() and time.monotonic() > self._drain_until_s

    def _see(self, spool: Spool) -> None:
        self._pending, self._medium = len(spool), spool.medium
        self._refused, self._spool_alarms = spool.aside, spool.alarms

    # What comes in.

    def _receive(self, spool: Spool) -> None:
        """Wait for mail at most a tick, then take all there is: one commit for all of it."""
        new: list[Draft] = []
        for mail in self._inbox.collect(_TICK_S):
            if isinstance(mail, Draft):
                new.append(mail)
            elif isinstance(mail, UnspooledMessage):
                self._sender.say(mail)
            elif mail is not None and mail.number == self._sender.number:
                self.publisher_progress_s = time.monotonic()
                self._sender.hear(mail.note, spool)
        self._spool_writer.enter(spool, new, self._inbox.take_turned_away())

    def _look_around(self, spool: Spool) -> None:
        """Things that are looked at now and then: files that may have changed, the disk."""
        now = time.monotonic()
        if now < self._look_at_s:
            return
        self._look_at_s = now + _LOOK_S
        self._spool_writer.tend(spool)
        choice = replay.take(self._replay_file) if self._replay_file else None
        if choice:
            _log.info("spool: %d messages to be sent again", spool.send_again(choice))
            self._sender.from_the_oldest()
        self._sender.renew()

    def _say_goodbye(self) -> None:
        """Offline, acknowledged, and then the end: what is still under way would bring the will."""
        until_s = time.monotonic() + _FLUSH_S
        mid = self._sender.say_offline()
        if mid is not None:
            self._wait_for(mid, until_s)
        self._sender.close(_FLUSH_S)

    def _wait_for(self, mid: int, until_s: float) -> None:
        while time.monotonic() < until_s:
            for mail in self._inbox.collect(_TICK_S):
                if isinstance(mail, ConnectionNote) and mail.number == self._sender.number:
                    if isinstance(mail.note, Lost):
                        return
                    if isinstance(mail.note, Acknowledged) and mail.note.mid == mid:
                        return
                if time.monotonic() >= until_s:
                    return
