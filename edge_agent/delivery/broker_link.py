"""Broker link: keeps one numbered connection to the broker and replaces a lost one after a delay.

Falls back to MQTT 3.1.1 if the broker refuses MQTT 5 or does not answer it. It knows nothing of the
messages sent; its owner clears the messages in flight when a connection is lost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Protocol

from edge_agent.clock import SYSTEM, Clock
from edge_agent.delivery.backoff import Backoff
from edge_agent.delivery.connection_events import Connected, Lost, Note
from edge_agent.delivery.in_flight import TAKEN_OVER
from edge_agent.errors import BrokerError

_log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 3.0
"""From the TCP connection to CONNACK."""
_CONNECT_TIMEOUT_S = 15.0
"""Up to the TCP connection: a name server lookup may hang for minutes."""


class Link(Protocol):
    """Interface of a connection (mqtt_connection.Connection)."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation_data: bytes | None = None,
    ) -> int | None:
        """Send with QoS 1; return the packet id, or None if it could not be sent."""
        ...

    def close(self, flush_s: float = 0.0) -> None:
        """Disconnect, waiting up to `flush_s` for published data to leave."""
        ...

    def stale(self) -> bool:
        """Return True if the credentials on disk have changed and are usable."""
        ...


class Connect(Protocol):
    """Factory of connections; `will` is the payload of the last will on the state topic."""

    def __call__(self, tell: Callable[[Note], None], mqtt311: bool, will: bytes) -> Link:
        """Start to connect. Raises BrokerError, OSError or ValueError."""
        ...


class BrokerLink:
    """Link to the broker, used from one thread.

    `tell` is called with the connection's number and note, in the connection's own thread.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        tell: Callable[[int, Note], None],
        will: Callable[[], bytes],
        mqtt311: bool,
        clock: Clock = SYSTEM,
    ) -> None:
        """Prepare the link; `keep` connects.

        Args:
            connect: opens a connection.
            name: the agent's topic, used in the alarm.
            tell: receives the notes of connections.
            will: returns the last will; called for each new connection.
            mqtt311: begin with MQTT 3.1.1 instead of 5.
            clock: source of time.
        """
        self._connect, self._name, self._tell, self._will = connect, name, tell, will
        self._mqtt311, self._clock = mqtt311, clock
        self._link: Link | None = None
        self._accepted = False
        self._answer_by_s = 0.0
        self._backoff = Backoff()
        self._taken_over = self._version_known = False
        self.number = 0
        """Number of the current connection; notes of earlier ones are ignored."""
        self.retry_at_s = 0.0
        self.max_packet_bytes: int | None = None

    @property
    def is_open(self) -> bool:
        """True if there is a connection, accepted by the broker or not."""
        return self._link is not None

    @property
    def online(self) -> bool:
        """True if the broker has accepted the connection."""
        return self._accepted and self._link is not None

    @property
    def alarm(self) -> str:
        """Alarm text about a second client with this name, or ""."""
        if not self._taken_over:
            return ""
        return f"broker: another client connects as {self._name}; is this agent's name given twice?"

    def keep(self, *, may_connect: bool) -> None:
        """Give up a connection without an answer, and connect if it is time.

        To be called at short intervals.
        """
        now = self._clock.monotonic_s()
        if self._link and not self._accepted and now > self._answer_by_s:
            # A broker of one MQTT version may not answer the other: amqtt reads an MQTT 5 CONNECT
            # as 3.1.1 and waits for more bytes. If it has answered before, keep the version: the
            # link is only half-open, and 3.1.1 would lose the reason codes.
            self._mqtt311 ^= not self._version_known
            self.lose("no answer to CONNECT")
        if self._taken_over and self.online and self._backoff.stable(now):
            self._taken_over = False
        if self._link is None and now >= self.retry_at_s and may_connect:
            self.number += 1
            number = self.number
            self._answer_by_s = now + _CONNECT_TIMEOUT_S
            try:
                self._link = self._connect(
                    lambda note: self._tell(number, note), self._mqtt311, self._will()
                )
            except (BrokerError, OSError, ValueError) as error:
                self.lose(str(error))

    def reached(self) -> None:
        """Record the TCP connection; CONNACK is now due within 3 s."""
        self._answer_by_s = self._clock.monotonic_s() + _ANSWER_TIMEOUT_S

    def accepted(self, note: Connected) -> None:
        """Record that the broker accepted the connection, and its limits."""
        self._accepted, self._answer_by_s = True, math.inf
        self.max_packet_bytes = note.max_packet_bytes
        self._version_known = True
        self._backoff.connected(self._clock.monotonic_s())

    def falls_back(self, note: Lost) -> bool:
        """Switch to MQTT 3.1.1 if the broker asks for it; return True if it is new."""
        falls = note.wants_mqtt311 and not self._mqtt311
        self._mqtt311 = self._mqtt311 or falls
        return falls

    def lose(self, reason: str, *, at_once: bool = False, code: int | None = None) -> None:
        """Close the connection and schedule a new one.

        Args:
            reason: text for the log.
            at_once: reconnect without delay.
            code: MQTT reason code with which the broker ended the connection.
        """
        self.close()
        now = self._clock.monotonic_s()
        taken_over = code == TAKEN_OVER
        wait_s = self._backoff.lost(now, at_once=at_once, taken_over=taken_over)
        self.retry_at_s = now + wait_s
        if taken_over:
            self._taken_over = True
            _log.error("%s", self.alarm)
        _log.warning("broker: %s; next try in %.1f s", reason, wait_s)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation_data: bytes | None = None,
    ) -> int | None:
        """Send with QoS 1; return the packet id, or None if it could not be sent."""
        if self._link is None:
            return None
        return self._link.publish(topic, payload, retain=retain, correlation_data=correlation_data)

    def stale(self) -> bool:
        """Return True if there is a connection and its credentials on disk have changed."""
        return self._link is not None and self._link.stale()

    def close(self, flush_s: float = 0.0) -> None:
        """Close the connection, waiting up to `flush_s` for published data to leave."""
        link, self._link = self._link, None
        if link is None:
            return
        self._accepted = False
        self.number += 1
        link.close(flush_s)
