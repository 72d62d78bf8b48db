"""The way to the broker: one connection after the other, each with a number.

A connection that is lost is replaced, sooner or later: that is `backoff`'s to say. A broker that
does not speak MQTT 5, or leaves it without an answer, is asked in 3.1.1. Nothing here knows what is
sent; who is told that a connection is lost forgets what was under way over it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from edge_agent.delivery.backoff import Backoff
from edge_agent.delivery.connection_events import Connected, Lost, Note
from edge_agent.delivery.in_flight import TAKEN_OVER
from edge_agent.errors import BrokerError

_log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 3.0
"""From a socket that is open to the broker's word that we may speak."""
_CONNECT_TIMEOUT_S = 15.0
"""For all that lies before: a name server may hang for minutes."""


class Link(Protocol):
    """What is needed of a connection (publish.Connection)."""

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
    """Opens a connection whose last will, on the state's topic, is `will`."""

    def __call__(self, tell: Callable[[Note], None], mqtt311: bool, will: bytes) -> Link: ...


class BrokerLink:
    """Used from one thread; `tell`, with the connection's number, is called in the connection's."""

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        tell: Callable[[int, Note], None],
        will: Callable[[], bytes],
        mqtt311: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`will` is asked for at each new connection. `name`: ours, for the alarm."""
        self._connect, self._name, self._tell, self._will = connect, name, tell, will
        self._mqtt311, self._clock = mqtt311, clock
        self._link: Link | None = None
        self._accepted = False
        self._answer_by_s = 0.0
        self._backoff = Backoff()
        self._taken_over = self._version_known = False
        self.number = 0
        """Of the connection that counts: what others still say is for nobody."""
        self.retry_at_s = 0.0
        self.max_packet_bytes: int | None = None

    @property
    def is_open(self) -> bool:
        """There is a connection, answered or not."""
        return self._link is not None

    @property
    def online(self) -> bool:
        """The broker said that we may speak."""
        return self._accepted and self._link is not None

    @property
    def alarm(self) -> str:
        """What a person must look at, or ""."""
        if not self._taken_over:
            return ""
        return f"broker: another client connects as {self._name}; is this agent's name given twice?"

    def keep(self, *, may_connect: bool) -> None:
        """To be called often: give up what does not answer, and connect when it is time."""
        now = self._clock()
        if self._link and not self._accepted and now > self._answer_by_s:
            # A broker that knows one version only may leave the other without an answer: amqtt
            # takes an MQTT 5 CONNECT for 3.1.1 and waits for the rest of it. Of one that has spoken
            # to us silence says nothing: the link is half-open, and 3.1.1 has no reason codes.
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
        self._answer_by_s = self._clock() + _ANSWER_TIMEOUT_S

    def accepted(self, note: Connected) -> None:
        self._accepted, self._answer_by_s = True, math.inf
        self.max_packet_bytes = note.max_packet_bytes
        self._version_known = True
        self._backoff.connected(self._clock())

    def falls_back(self, note: Lost) -> bool:
        """Whether the broker wants MQTT 3.1.1, and has not got it yet: it does from now on."""
        falls = note.wants_mqtt311 and not self._mqtt311
        self._mqtt311 = self._mqtt311 or falls
        return falls

    def lose(self, reason: str, *, at_once: bool = False, code: int | None = None) -> None:
        """Give the connection up, for a new one later. `code`: with which the broker ended it."""
        self.close()
        now = self._clock()
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
        """The id to wait for, or None when it could not be sent."""
        if self._link is None:
            return None
        return self._link.publish(topic, payload, retain=retain, correlation_data=correlation_data)

    def stale(self) -> bool:
        """Whether a new connection would be made with other certificates or passwords."""
        return self._link is not None and self._link.stale()

    def close(self, flush_s: float = 0.0) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        self._accepted = False
        self.number += 1
        link.close(flush_s)
