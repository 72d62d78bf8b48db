"""Sender: publishes from the spool over the current connection and handles the answers.

Joins the broker link, which knows no messages, with InFlight, which knows no connection. Accepted
and refused messages go to the spool writer; the spool is only read here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_agent.clock import SYSTEM, Clock
from edge_agent.delivery.broker_link import BrokerLink
from edge_agent.delivery.connection_events import (
    Acknowledged,
    Connected,
    Incoming,
    Lost,
    Note,
    NotSubscribed,
    TcpConnected,
)
from edge_agent.delivery.in_flight import Accepted, Deferred, InFlight, Rejected
from edge_agent.delivery.inbox import Unspooled
from edge_agent.delivery.retained import Retained
from edge_agent.delivery.spool.message import StoredMessage
from edge_agent.delivery.spool.spool import Spool
from edge_agent.delivery.spool_writer import SpoolWriter

_log = logging.getLogger(__name__)

_ACK_TIMEOUT_S = 10.0
_PACKET_OVERHEAD_BYTES = 32


class Sender:
    """Sender used from one thread; its owner passes the connection's notes to `hear`."""

    def __init__(
        self,
        topic_base: str,
        *,
        spool: Spool,
        writer: SpoolWriter,
        in_flight: InFlight,
        link: BrokerLink,
        retained: Retained,
        on_incoming: Callable[[Incoming], None],
        clock: Clock = SYSTEM,
    ) -> None:
        self._base, self._on_incoming, self._clock = topic_base, on_incoming, clock
        self._spool, self._writer, self._retained = spool, writer, retained
        self._in_flight, self._link = in_flight, link

    @property
    def number(self) -> int:
        """Number of the current connection."""
        return self._link.number

    @property
    def online(self) -> bool:
        """True if the broker has accepted the connection."""
        return self._link.online

    @property
    def alarm(self) -> str:
        """Alarm text of the broker link, or ""."""
        return self._link.alarm

    @property
    def rests(self) -> bool:
        """True if no answer is outstanding."""
        return not self._link.is_open or (self._link.online and not self._in_flight)

    @property
    def is_through(self) -> bool:
        """True if all messages are sent and answered, except those to retry later.

        Answered messages may still be unsent in the spool.
        """
        settled = len(self._writer.answered) + self._in_flight.resting == len(self._spool)
        settled = settled and not self._writer.losses_wait
        return settled and not self._in_flight and not self._retained.health_waits

    def is_hopeless(self, until_s: float) -> bool:
        """Return True if no connection attempt is due before `until_s`."""
        return not self._link.online and self._link.retry_at_s > until_s

    # Notes of the connection.

    def hear(self, note: Note) -> None:
        """Handle a note of the connection."""
        if isinstance(note, Acknowledged):
            self._acknowledged(note)
        elif isinstance(note, TcpConnected):
            self._link.reached()
        elif isinstance(note, Connected):
            self._link.accepted(note)
            self._in_flight.connected(note, self._spool.last_id)
            self._retained.connected()
            _log.info("broker: connected, %d messages waiting", len(self._spool))
        elif isinstance(note, Lost):
            self._ended(note)
        elif isinstance(note, NotSubscribed):
            _log.error("broker: we may not subscribe to %s: %s", note.topic, note.reason)
        else:
            self._take_in(note)

    def _acknowledged(self, note: Acknowledged) -> None:
        answer = self._in_flight.answered(note, self._clock.monotonic_s())
        if isinstance(answer, Accepted):
            self._writer.taken(answer.stored)
        elif isinstance(answer, Rejected):
            self._writer.put_aside(answer.stored, answer.why)
        elif isinstance(answer, Deferred):
            self._lose(answer.why)

    def _ended(self, note: Lost) -> None:
        if self._link.falls_back(note):
            self._lose(note.reason, at_once=True)
            return
        never = self._in_flight.ended(note) if self._link.online else None
        if never:
            self._writer.put_aside(never.stored, never.why)
        self._lose(note.reason, code=note.code)

    def _lose(self, reason: str, *, at_once: bool = False, code: int | None = None) -> None:
        self._in_flight.forget()
        self._link.lose(reason, at_once=at_once, code=code)

    def _take_in(self, message: Incoming) -> None:
        if message.topic == f"{self._base}/state":
            self._retained.overheard(message.payload)
        elif message.retained:
            _log.warning("broker: a retained message on %s is not for now", message.topic)
        else:
            self._on_incoming(message)

    # Outgoing messages.

    def keep_connected(self, *, may_connect: bool) -> None:
        """Replace a connection without acknowledgements for 10 s; connect if it is time."""
        if self._in_flight.waiting_s(self._clock.monotonic_s()) > _ACK_TIMEOUT_S:
            self._lose(f"no acknowledgement for {_ACK_TIMEOUT_S:.0f} s")
        self._link.keep(may_connect=may_connect)

    def renew(self) -> None:
        """Reconnect if the credentials on disk have changed."""
        if self._link.online and self._link.stale():
            self._lose("certificates or passwords have changed", at_once=True)

    def from_the_oldest(self) -> None:
        """Restart at the oldest message, after messages became unsent again."""
        self._in_flight.from_the_oldest()

    def send(self) -> None:
        """Publish changed documents, and messages of the spool up to the window."""
        if not self._link.online:
            return
        for topic, payload in self._retained.take():
            mid = self._link.publish(f"{self._base}/{topic}", payload, retain=True)
            self._sent_unspooled(mid, topic)
        now = self._clock.monotonic_s()
        for stored in self._in_flight.due(self._writer.answered, now):
            if not self._send_one(stored):
                return

    def _send_one(self, stored: StoredMessage) -> bool:
        payload, topic = self._in_flight.begin(stored), f"{self._base}/{stored.message.kind}"
        size = len(payload) + len(topic.encode()) + _PACKET_OVERHEAD_BYTES
        most = self._link.max_packet_bytes
        if most and size > most:
            self._in_flight.give_up(stored)
            self._writer.put_aside(stored, f"{size} bytes, the broker takes {most}")
            return True
        mid = self._link.publish(topic, payload)
        if mid is None:
            self._lose("the connection takes no more messages")
            return False
        self._in_flight.sent(mid, stored.message.kind, self._clock.monotonic_s(), stored)
        return True

    def say(self, message: Unspooled) -> None:
        """Publish an unspooled message if online; otherwise drop it."""
        if not self._link.online:
            return
        topic, correlation_data = message.topic, message.correlation_data
        size = len(message.payload) + len(topic.encode()) + len(correlation_data or b"")
        most = self._link.max_packet_bytes
        if most and size + _PACKET_OVERHEAD_BYTES > most:  # the broker would end the connection
            _log.error("broker: %s: %d bytes, the broker takes %d", topic, size, most)
            return
        mid = self._link.publish(topic, message.payload, correlation_data=correlation_data)
        self._sent_unspooled(mid, topic)

    def _sent_unspooled(self, mid: int | None, name: str) -> None:
        if mid is not None:
            self._in_flight.sent(mid, name, self._clock.monotonic_s())

    # Shutdown.

    def say_offline(self) -> int | None:
        """Publish the offline state; return its packet id, or None if disconnected."""
        if not self._link.online:
            return None
        return self._link.publish(f"{self._base}/state", self._retained.farewell(), retain=True)

    def close(self, flush_s: float) -> None:
        """Close the connection, waiting up to `flush_s` for published data to leave."""
        self._link.close(flush_s)
