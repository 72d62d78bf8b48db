"""Between an agent and a real broker: a link that can be cut, frozen, and made to lie.

It reads MQTT, so that acknowledgements can be held back or lost and publishes refused.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field

from tests.support import packets
from tests.support.packets import Packet


@dataclass(slots=True)
class _Pair:
    """One connection: the agent's end, the broker's end."""

    agent: socket.socket
    broker: socket.socket
    level: int = 5
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: list[bytes] = field(default_factory=list)

    def to_agent(self, data: bytes) -> None:
        with self.lock, contextlib.suppress(OSError):
            self.agent.sendall(data)

    def close(self) -> None:
        for end in self.agent, self.broker:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens on `port` of loopback from the start."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._pairs: list[_Pair] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._acks = "pass"
        self._refuse: list[int] = []
        self.refused: list[tuple[str, int, int]] = []
        """(boot_id, seq, code) of the events and gaps that were refused."""
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """All connections end at once."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    def freeze(self) -> None:
        """Half-open: connections stay, nothing moves, new ones are taken and lead nowhere."""
        self._flowing.clear()

    def thaw(self) -> None:
        """What stood still while frozen is cut: bytes of a dead link do not come back to life."""
        self.cut()
        self._flowing.set()

    def hold_acks(self) -> None:
        self._acks = "hold"

    def drop_acks(self) -> None:
        self._acks = "drop"

    def pass_acks(self) -> None:
        """Those held back come now, late and all at once."""
        self._acks = "pass"
        for pair in tuple(self._pairs):
            held, pair.held = pair.held, []
            pair.to_agent(b"".join(held))

    def refuse(self, code: int, count: int) -> None:
        """The next events or gaps get this reason code in place of the broker."""
        self._refuse += [code] * count

    def refuse_no_more(self) -> None:
        self._refuse.clear()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                agent, _ = self._server.accept()
                broker = socket.create_connection(("127.0.0.1", self._broker_port), timeout=2)
            except OSError:
                if not self._closed:
                    with contextlib.suppress(OSError, UnboundLocalError):
                        agent.close()
                continue
            broker.settimeout(None)
            for end in agent, broker:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(agent, broker)
            self._pairs.append(pair)
            for work in self._from_agent, self._from_broker:
                threading.Thread(target=work, args=(pair,), daemon=True).start()

    def _from_agent(self, pair: _Pair) -> None:
        for packet in packets.packets(pair.agent):
            self._flowing.wait()
            if packet.kind == packets.CONNECT:
                pair.level = packets.protocol_level(packet)
            if self._refuse and self._refused(pair, packet):
                continue
            try:
                pair.broker.sendall(packet.raw)
            except OSError:
                break
        pair.close()

    def _refused(self, pair: _Pair, packet: Packet) -> bool:
        if packet.kind != packets.PUBLISH or packets.qos(packet) != 1 or pair.level != 5:
            return False
        sent = packets.publish_of(packet, pair.level)
        if not sent.topic.endswith(("/event", "/gap")):
            return False
        code = self._refuse.pop(0)
        data = json.loads(sent.payload)["data"]
        self.refused.append((data["boot_id"], data["seq"], code))
        pair.to_agent(packets.puback(pair.level, sent.mid, code))
        return True

    def _from_broker(self, pair: _Pair) -> None:
        for packet in packets.packets(pair.broker):
            self._flowing.wait()
            if packet.kind == packets.PUBACK and self._acks != "pass":
                if self._acks == "hold":
                    pair.held.append(packet.raw)
                continue
            pair.to_agent(packet.raw)
        pair.close()
