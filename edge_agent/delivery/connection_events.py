"""Events that an MQTT connection reports to its owner."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TcpConnected:
    """Open TCP connection; the broker's CONNACK is outstanding."""


@dataclass(frozen=True, slots=True)
class Connected:
    """Acceptance by the broker, with its limits; None if it gave none."""

    max_packet_bytes: int | None = None
    receive_maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Failure or end of the connection; its client is not used again.

    `code` is the reason code of an MQTT 5 broker that ended it.
    """

    reason: str
    wants_mqtt311: bool = False
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Answer of the broker to a publish; `refused` is the reason if it was refused."""

    mid: int
    refused: str | None
    code: int = 0


@dataclass(frozen=True, slots=True)
class NotSubscribed:
    """Refusal of a subscription to `topic`."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """Message on a subscribed topic.

    `response_topic` and `correlation_data` are None without MQTT 5.
    """

    topic: str
    payload: bytes
    response_topic: str | None = None
    correlation_data: bytes | None = None
    retained: bool = False


Note = TcpConnected | Connected | Lost | Acknowledged | NotSubscribed | Incoming


@dataclass(frozen=True, slots=True)
class Will:
    """Last will: topic and payload that the broker publishes if the connection breaks."""

    topic: str
    payload: bytes
