"""From the spool to the broker: what is sent over the connection there is, and what the answers do.

Joins the broker link, which does not know what goes over it, with what is under way, which knows no
connection: once one is lost, no answer to what it carried will come. What the broker took or will
never take goes into the spool writer; the spool is only read here. No thread and no inbox: whoever
has these tells what the connection said.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from edge_agent.delivery.broker_link import BrokerLink, Connect
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
from edge_agent.delivery.inbox import UnspooledMessage
from edge_agent.delivery.retained import Retained
from edge_agent.delivery.spool.message import StoredMessage
from edge_agent.delivery.spool.spool import Spool
from edge_agent.delivery.spool_writer import SpoolWriter

_log = logging.getLogger(__name__)

_ACK_TIMEOUT_S = 10.0
_PACKET_OVERHEAD_BYTES = 32


class Sender:
    """Used from one thread; `number`, `online` and `alarm` may be read from any."""

    def __init__(
        self,
        connect: Connect,
        *,
        topic_base: str,
        window: int,
        mqtt311: bool,
        tell: Callable[[int, Note], None],
        on_incoming: Callable[[Incoming], None],
        retained: Retained,
        spool_writer: SpoolWriter,
    ) -> None:
        """`tell` is called in a connection's thread, with its number and what it says."""
        self._base, self._on_incoming = topic_base, on_incoming
        self._retained, self._spool_writer = retained, spool_writer
        self._in_flight = InFlight(window)
        self._broker_link = BrokerLink(
            connect, name=topic_base, tell=tell, will=retained.farewell, mqtt311=mqtt311
        )

    @property
    def number(self) -> int:
        """Of the connection that counts."""
        return self._broker_link.number

    @property
    def online(self) -> bool:
        return self._broker_link.online

    @property
    def alarm(self) -> str:
        return self._broker_link.alarm

    @property
    def rests(self) -> bool:
        """Nothing waits for an answer."""
        return not self._broker_link.is_open or (self._broker_link.online and not self._in_flight)

    def is_through(self, spool: Spool) -> bool:
        """All is sent and answered, but for what rests; what was answered is in the spool yet."""
        settled = len(self._spool_writer.answered) + self._in_flight.resting == len(spool)
        settled = settled and not self._spool_writer.losses_wait
        return settled and not self._in_flight and not self._retained.health_waits

    def is_hopeless(self, until_s: float) -> bool:
        """No connection will be tried by then."""
        return not self._broker_link.online and self._broker_link.retry_at_s > until_s

    # What the connection says.

    def hear(self, note: Note, spool: Spool) -> None:
        if isinstance(note, Acknowledged):
            self._acknowledged(note)
        elif isinstance(note, TcpConnected):
            self._broker_link.reached()
        elif isinstance(note, Connected):
            self._broker_link.accepted(note)
            self._in_flight.connected(note, spool.last_id)
            self._retained.connected()
            _log.info("broker: connected, %d messages waiting", len(spool))
        elif isinstance(note, Lost):
            self._ended(note)
        elif isinstance(note, NotSubscribed):
            _log.error("broker: we may not subscribe to %s: %s", note.topic, note.reason)
        else:
            self._take_in(note)

    def _acknowledged(self, note: Acknowledged) -> None:
        answer = self._in_flight.answered(note, time.monotonic())
        if isinstance(answer, Accepted):
            self._spool_writer.taken(answer.stored)
        elif isinstance(answer, Rejected):
            self._spool_writer.put_aside(answer.stored, answer.why)
        elif isinstance(answer, Deferred):
            self._lose(answer.why)

    def _ended(self, note: Lost) -> None:
        if self._broker_link.falls_back(note):
            self._lose(note.reason, at_once=True)
            return
        never = self._in_flight.ended(note) if self._broker_link.online else None
        if never:
            self._spool_writer.put_aside(never.stored, never.why)
        self._lose(note.reason, code=note.code)

    def _lose(self, reason: str, *, at_once: bool = False, code: int | None = None) -> None:
        self._in_flight.forget()
        self._broker_link.lose(reason, at_once=at_once, code=code)

    def _take_in(self, message: Incoming) -> None:
        if message.topic == f"{self._base}/state":
            self._retained.overheard(message.payload)
        elif message.retained:
            _log.warning("broker: a retained message on %s is not for now", message.topic)
        else:
            self._on_incoming(message)

    # What goes out.

    def keep_connected(self, *, may_connect: bool) -> None:
        if self._in_flight.waiting_s(time.monotonic()) > _ACK_TIMEOUT_S:
            self._lose(f"no acknowledgement for {_ACK_TIMEOUT_S:.0f} s")
        self._broker_link.keep(may_connect=may_connect)

    def renew(self) -> None:
        """A new connection, where certificates or passwords are others by now."""
        if self._broker_link.online and self._broker_link.stale():
            self._lose("certificates or passwords have changed", at_once=True)

    def from_the_oldest(self) -> None:
        """Messages became unsent somewhere in the spool."""
        self._in_flight.from_the_oldest()

    def send(self, spool: Spool) -> None:
        """The documents that changed, and as much of the spool as there is room for."""
        if not self._broker_link.online:
            return
        for topic, payload in self._retained.take():
            mid = self._broker_link.publish(f"{self._base}/{topic}", payload, retain=True)
            self._sent_unspooled(mid, topic)
        now = time.monotonic()
        for stored in self._in_flight.due(spool.after, self._spool_writer.answered, now):
            if not self._send_one(stored):
                return

    def _send_one(self, stored: StoredMessage) -> bool:
        payload, topic = self._in_flight.begin(stored), f"{self._base}/{stored.message.kind}"
        size = len(payload) + len(topic.encode()) + _PACKET_OVERHEAD_BYTES
        most = self._broker_link.max_packet_bytes
        if most and size > most:
            self._in_flight.give_up(stored)
            self._spool_writer.put_aside(stored, f"{size} bytes, the broker takes {most}")
            return True
        mid = self._broker_link.publish(topic, payload)
        if mid is None:
            self._lose("the connection takes no more messages")
            return False
        self._in_flight.sent(mid, stored.message.kind, time.monotonic(), stored)
        return True

    def say(self, said: UnspooledMessage) -> None:
        """Now or never."""
        if not self._broker_link.online:
            return
        size = len(said.payload) + len(said.topic.encode()) + len(said.correlation_data or b"")
        most = self._broker_link.max_packet_bytes
        if most and size + _PACKET_OVERHEAD_BYTES > most:  # it would end the connection
            _log.error("broker: %s: %d bytes, the broker takes %d", said.topic, size, most)
            return
        mid = self._broker_link.publish(
            said.topic, said.payload, correlation_data=said.correlation_data
        )
        self._sent_unspooled(mid, said.topic)

    def _sent_unspooled(self, mid: int | None, name: str) -> None:
        if mid is not None:
            self._in_flight.sent(mid, name, time.monotonic())

    # The end.

    def say_offline(self) -> int | None:
        """The id of our last word, to wait for; None where nobody hears it."""
        if not self._broker_link.online:
            return None
        return self._broker_link.publish(
            f"{self._base}/state", self._retained.farewell(), retain=True
        )

    def close(self, flush_s: float) -> None:
        self._broker_link.close(flush_s)
