"""A broker that does what a test says: real sockets, real MQTT 5, and no good will."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support import packets
from tests.support.packets import Packet


@dataclass(slots=True)
class Visit:
    """One connection of the agent, as the broker saw it."""

    number: int
    sock: socket.socket
    level: int = 5
    client_id: str = ""
    published: list[packets.Publish] = field(default_factory=list)
    open: bool = True

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def acknowledge(self, one: packets.Publish, code: int = 0) -> None:
        self.send(packets.puback(self.level, one.mid, code))

    def numbered(self) -> list[dict[str, Any]]:
        """`data` of the events and gaps that came, in the order they came."""
        return [
            json.loads(one.payload)["data"]
            for one in tuple(self.published)
            if one.topic.endswith(("/event", "/gap"))
        ]

    def seqs(self) -> list[int]:
        return [data["seq"] for data in self.numbered()]

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Broker:
    """Accepts and acknowledges all, unless a test changes `greet` or `answer`."""

    def __init__(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        self.visits: list[Visit] = []
        self.greet: Callable[[Visit], None] = lambda visit: visit.send(packets.connack(visit.level))
        self.answer: Callable[[Visit, packets.Publish], None] = Visit.acknowledge
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for visit in self.visits:
            visit.end()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            visit = Visit(len(self.visits), sock)
            self.visits.append(visit)
            threading.Thread(target=self._serve, args=(visit,), daemon=True).start()

    def _serve(self, visit: Visit) -> None:
        for packet in packets.packets(visit.sock):
            self._handle(visit, packet)
        visit.open = False
        visit.sock.close()

    def _handle(self, visit: Visit, packet: Packet) -> None:
        if packet.kind == packets.CONNECT:
            visit.level, visit.client_id = (
                packets.protocol_level(packet),
                packets.client_id(packet),
            )
            self.greet(visit)
        elif packet.kind == packets.SUBSCRIBE:
            visit.send(packets.suback(packet, visit.level))
        elif packet.kind == packets.PINGREQ:
            visit.send(Packet(packets.PINGRESP, 0, b"").raw)
        elif packet.kind == packets.PUBLISH:
            one = packets.publish_of(packet, visit.level)
            visit.published.append(one)
            if one.topic.endswith(("/event", "/gap")):
                self.answer(visit, one)
            else:
                visit.acknowledge(one)
