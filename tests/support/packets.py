"""As much of MQTT 3.1.1 and 5 on the wire as a proxy and a scripted broker need."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 8, 9, 12, 13, 14


@dataclass(frozen=True, slots=True)
class Packet:
    kind: int
    flags: int
    body: bytes

    @property
    def raw(self) -> bytes:
        return bytes([self.kind << 4 | self.flags]) + varint(len(self.body)) + self.body


@dataclass(frozen=True, slots=True)
class Publish:
    topic: str
    mid: int
    payload: bytes
    retain: bool
    duplicate: bool


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where it ends. Raises IndexError where more is to come."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return number, at


class Splitter:
    """Bytes in, whole packets out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        self._buffer += data
        while True:
            try:
                length, begin = read_varint(self._buffer, 1)
            except IndexError:
                return
            if len(self._buffer) < begin + length:
                return
            body = bytes(self._buffer[begin : begin + length])
            head = self._buffer[0]
            del self._buffer[: begin + length]
            yield Packet(head >> 4, head & 15, body)


def packets(sock: socket.socket) -> Iterator[Packet]:
    """Until the other end is gone."""
    splitter = Splitter()
    while True:
        try:
            data = sock.recv(65536)
        except OSError:
            return
        if not data:
            return
        yield from splitter.feed(data)


def text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">H", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length


def protocol_level(connect: Packet) -> int:
    """4 is MQTT 3.1.1, 5 is MQTT 5."""
    _, at = text(connect.body, 0)
    return connect.body[at]


def client_id(connect: Packet) -> str:
    _, at = text(connect.body, 0)
    at += 4  # level, flags, keep-alive
    if protocol_level(connect) == 5:
        length, at = read_varint(connect.body, at)
        at += length
    return text(connect.body, at)[0]


def publish_of(packet: Packet, level: int) -> Publish:
    """Of QoS 1 or 2."""
    topic, at = text(packet.body, 0)
    (mid,) = struct.unpack_from(">H", packet.body, at)
    at += 2
    if level == 5:
        length, at = read_varint(packet.body, at)
        at += length
    return Publish(topic, mid, packet.body[at:], bool(packet.flags & 1), bool(packet.flags & 8))


def qos(publish: Packet) -> int:
    return publish.flags >> 1 & 3


def connack(level: int, code: int = 0, properties: bytes = b"") -> bytes:
    body = bytes([0, code])
    if level == 5:
        body += varint(len(properties)) + properties
    return Packet(CONNACK, 0, body).raw


def puback(level: int, mid: int, code: int = 0) -> bytes:
    body = struct.pack(">H", mid)
    if level == 5 and code:
        body += bytes([code, 0])
    return Packet(PUBACK, 0, body).raw


def suback(packet: Packet, level: int, code: int = 1) -> bytes:
    """One answer for each topic that was asked for."""
    at = 2
    if level == 5:
        length, at = read_varint(packet.body, at)
        at += length
    count = 0
    while at < len(packet.body):
        _, at = text(packet.body, at)
        at += 1
        count += 1
    properties = b"\0" if level == 5 else b""
    return Packet(SUBACK, 0, packet.body[:2] + properties + bytes([code]) * count).raw


def publish(level: int, topic: str, payload: bytes, *, retain: bool = False) -> bytes:
    """With QoS 0."""
    name = topic.encode()
    properties = b"\0" if level == 5 else b""
    body = struct.pack(">H", len(name)) + name + properties + payload
    return Packet(PUBLISH, int(retain), body).raw


def disconnect(code: int) -> bytes:
    """Of an MQTT 5 broker."""
    return Packet(DISCONNECT, 0, bytes([code, 0])).raw
