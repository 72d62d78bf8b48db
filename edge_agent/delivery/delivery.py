"""Delivery thread: drafts to spool to broker, without blocking inference.

All input (drafts, connection events, acknowledgements) arrives in one inbox and is handled in
order: inbox ▶ spool writer ▶ spool ▶ sender ▶ broker link.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edge_agent.clock import SYSTEM, Clock
from edge_agent.delivery import losses
from edge_agent.delivery.broker_link import BrokerLink, Connect
from edge_agent.delivery.connection_events import Acknowledged, Incoming, Lost, Note
from edge_agent.delivery.drafts import Draft
from edge_agent.delivery.in_flight import InFlight
from edge_agent.delivery.inbox import Inbox, LinkNote, Mail, NewHealth, RestartLink, Stop, Unspooled
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
"""Interval in s between checks of files and disk."""


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Counts and state of delivery.

    `loss_gaps` are declared losses of messages, by reason; `messages_refused` are dead letters.
    """

    events_spooled: int
    events_published: int
    messages_pending: int
    messages_dropped: int
    messages_refused: int
    loss_gaps: dict[str, int]
    alarms: tuple[str, ...]
    connected: bool
    spool: Literal["disk", "memory"]


@dataclass(slots=True)
class _Seen:
    """Values published by the delivery thread, each replaced as a whole."""

    counts: DeliveryCounts
    progress_s: float
    publisher_progress_s: float


class Delivery(threading.Thread):
    """Thread that delivers the messages queued in `inbox`, from `start` to `stop`."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        open_spool: Callable[[], Spool],
        connect: Connect,
        topic_base: str,
        state: StateDocument,
        window: int,
        mqtt311: bool = False,
        on_incoming: Callable[[Incoming], None] = lambda _: None,
        replay_file: Path | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        """Prepare the thread; call `start` to run it.

        Args:
            inbox: source of all input.
            open_spool: opens the spool; called in the thread.
            connect: opens a broker connection.
            topic_base: topic of the agent, without a final slash.
            state: birth document; its offline form is the last will.
            window: largest number of messages in flight.
            mqtt311: begin with MQTT 3.1.1 instead of 5.
            on_incoming: called in the thread with each incoming message, except retained ones; must
                return at once.
            replay_file: path of the replay request file, see replay.py.
            clock: source of time.
        """
        super().__init__(name="delivery", daemon=True)
        self._inbox, self._open_spool, self._connect = inbox, open_spool, connect
        self._base, self._state = topic_base, state
        self._window, self._mqtt311 = window, mqtt311
        self._on_incoming, self._replay_file = on_incoming, replay_file
        self._clock = clock
        now = clock.monotonic_s()
        nothing = DeliveryCounts(0, 0, 0, 0, 0, {}, (), False, "disk")
        self._seen = _Seen(nothing, now, now)

    # Called from other threads.

    def offer(self, draft: Draft) -> bool:
        """Queue a draft without waiting; return False if the inbox is full (it is declared)."""
        return self._inbox.offer(draft)

    @property
    def progress_s(self) -> float:
        """Monotonic time in s of the loop's last iteration; for the watchdog."""
        return self._seen.progress_s

    @property
    def publisher_progress_s(self) -> float:
        """Time for the watchdog: the connection's last event, or last moment with no answer owed.

        Monotonic, in s.
        """
        return self._seen.publisher_progress_s

    def counts(self) -> DeliveryCounts:
        """Return the counts of the last iteration, plus the messages queued in the inbox."""
        counts = self._seen.counts
        if not self.is_alive():
            return counts
        return replace(counts, messages_pending=counts.messages_pending + len(self._inbox))

    def stop(self, drain_s: float) -> None:
        """Request the end: spool all drafts, publish for up to `drain_s`, publish offline."""
        self._inbox.stop(self._clock.monotonic_s() + drain_s)

    # In the thread.

    def run(self) -> None:
        """Build the parts in this thread and run them until `stop`."""
        with contextlib.closing(self._open_spool()) as spool:
            retained = Retained(self._state)
            writer = SpoolWriter(
                spool,
                losses.nowhere(self._base, self._state.boot_id, self._clock),
                clock=self._clock,
            )
            link = BrokerLink(
                self._connect,
                name=self._base,
                tell=self._inbox.hear,
                will=retained.farewell,
                mqtt311=self._mqtt311,
                clock=self._clock,
            )
            sender = Sender(
                self._base,
                spool=spool,
                writer=writer,
                in_flight=InFlight(self._window, spool.after),
                link=link,
                retained=retained,
                on_incoming=self._on_incoming,
                clock=self._clock,
            )
            loop = _Loop(self._inbox, spool, writer, sender, retained, self._seen, self._clock)
            loop.run(self._replay_file)


class _Loop:
    """Main loop of one run, in the thread that built its parts."""

    def __init__(
        self,
        inbox: Inbox,
        spool: Spool,
        writer: SpoolWriter,
        sender: Sender,
        retained: Retained,
        seen: _Seen,
        clock: Clock,
    ) -> None:
        self._inbox, self._spool, self._writer = inbox, spool, writer
        self._sender, self._retained, self._seen = sender, retained, seen
        self._clock = clock
        self._stop_by_s: float | None = None
        self._look_at_s = 0.0

    def run(self, replay_file: Path | None) -> None:
        """Run until stopped; then publish offline and write all pending changes."""
        try:
            while not self._finished():
                self._receive()
                self._sender.keep_connected(may_connect=not self._over())
                self._sender.send()
                self._look_around(replay_file)
                self._show()
        finally:
            self._say_goodbye()
            self._writer.close()
            self._show()

    def _show(self) -> None:
        alarm = (self._sender.alarm,) if self._sender.alarm else ()
        self._seen.counts = DeliveryCounts(
            events_spooled=self._writer.spooled,
            events_published=self._writer.published,
            messages_pending=len(self._spool),
            messages_dropped=self._writer.dropped,
            messages_refused=self._spool.aside,
            loss_gaps=self._writer.loss_gaps(),
            alarms=(*alarm, *self._spool.alarms),
            connected=self._sender.online,
            spool=self._spool.medium,
        )
        now = self._clock.monotonic_s()
        if self._sender.rests:
            self._seen.publisher_progress_s = now
        self._seen.progress_s = now

    def _finished(self) -> bool:
        if self._stop_by_s is None or not self._inbox.is_empty:
            return False
        hopeless = self._sender.is_hopeless(self._stop_by_s)
        return self._sender.is_through or hopeless or self._over()

    def _over(self) -> bool:
        return self._stop_by_s is not None and self._clock.monotonic_s() > self._stop_by_s

    # Input.

    def _receive(self) -> None:
        """Wait up to one tick for input, then handle everything queued in one commit."""
        new: list[Draft] = []
        for mail in self._inbox.collect(_TICK_S):
            if isinstance(mail, Draft):
                new.append(mail)
            else:
                self._handle(mail)
        self._writer.enter(new, self._inbox.take_turned_away())

    def _handle(self, mail: Mail) -> None:
        match mail:
            case LinkNote(number, note) if number == self._sender.number:
                self._heard(note)
            # Keep a connection that is already a new one, or that owes no answer.
            case RestartLink() if not self._sender.rests:
                self._heard(Lost("the connection's thread stands still"))
            case Unspooled():
                self._sender.say(mail)
            case StateDocument():
                self._retained.set_state(mail)
            case NewHealth(document):
                self._retained.set_health(document)
            case Stop(until_s):
                self._stop_by_s = until_s

    def _heard(self, note: Note) -> None:
        self._seen.publisher_progress_s = self._clock.monotonic_s()
        self._sender.hear(note)

    def _look_around(self, replay_file: Path | None) -> None:
        """Check at intervals the disk, the replay request file and the credentials."""
        now = self._clock.monotonic_s()
        if now < self._look_at_s:
            return
        self._look_at_s = now + _LOOK_S
        self._writer.tend()
        choice = replay.take(replay_file) if replay_file else None
        if choice:
            _log.info("spool: %d messages to be sent again", self._spool.send_again(choice))
            self._sender.from_the_oldest()
        self._sender.renew()

    def _say_goodbye(self) -> None:
        """Publish the offline state, wait for its acknowledgement, and disconnect.

        A connection cut while the state is in flight would make the broker publish the will.
        """
        until_s = self._clock.monotonic_s() + _FLUSH_S
        mid = self._sender.say_offline()
        if mid is not None:
            self._wait_for(mid, until_s)
        self._sender.close(_FLUSH_S)

    def _wait_for(self, mid: int, until_s: float) -> None:
        while self._clock.monotonic_s() < until_s:
            for mail in self._inbox.collect(_TICK_S):
                if isinstance(mail, LinkNote) and mail.number == self._sender.number:
                    if isinstance(mail.note, Lost):
                        return
                    if isinstance(mail.note, Acknowledged) and mail.note.mid == mid:
                        return
                if self._clock.monotonic_s() >= until_s:
                    return
