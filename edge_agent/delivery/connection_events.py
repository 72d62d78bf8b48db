"""What an MQTT connection reports to its owner."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TcpConnected:
    """The host took our connection; the broker's answer is still to come."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted us; the limits are those it named, None where it named none."""

    max_packet_bytes: int | None = None
    receive_maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection failed or ended; this client is of no more use.

    `code` is the reason code with which an MQTT 5 broker ended it.
    """

    reason: str
    wants_mqtt311: bool = False
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker answered a publish; `refused` is the reason where it did not take it."""

    mid: int
    refused: str | None
    code: int = 0


@dataclass(frozen=True, slots=True)
class NotSubscribed:
    """The broker does not let us listen there."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message on a topic we subscribed to. The last two are None without MQTT 5."""

    topic: str
    payload: bytes
    response_topic: str | None = None
    correlation_data: bytes | None = None
    retained: bool = False


Note = TcpConnected | Connected | Lost | Acknowledged | NotSubscribed | Incoming


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
