"""Connections and the embedded broker against real brokers and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config.config import MqttConfig
from edge_agent.delivery.connection_events import (
    Acknowledged,
    Connected,
    Lost,
    Note,
    TcpConnected,
    Will,
)
from edge_agent.delivery.embedded_broker import EmbeddedBroker
from edge_agent.delivery.mqtt_connection import Connection, address
from edge_agent.errors import BrokerError, ConfigError
from tests.support.paths import ROOT

STATE = "linegate/site/line/agent/state"
WILL = Will(STATE, b"offline")

# After a failed handshake paho leaves the socket to the garbage collector.
_PAHO_LEAVES_THE_SOCKET = pytest.mark.filterwarnings(
    "ignore:unclosed <ssl.SSLSocket:ResourceWarning"
)


class Client:
    """A Connection and all it tells."""

    def __init__(self, config: MqttConfig, will: Will = WILL, mqtt311: bool = False) -> None:
        self.notes: queue.SimpleQueue[Note] = queue.SimpleQueue()
        self.connection = Connection(config, "agent-1", will, self.notes.put, mqtt311)

    def note(self) -> Note:
        """What it tells next, but for TcpConnected, which comes before all else."""
        note = self.notes.get(timeout=30)
        return self.note() if note == TcpConnected() else note


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    opened: list[Client] = []

    def connect(config: MqttConfig, **keys: Any) -> Client:
        opened.append(Client(config, **keys))
        return opened[-1]

    yield connect
    for one in opened:
        one.connection.close()


@pytest.mark.parametrize(
    ("broker", "expected"),
    [
        ("embedded", ("127.0.0.1", 1884, False)),
        ("mqtt://plant", ("plant", 1883, False)),
        ("mqtts://plant", ("plant", 8883, True)),
        ("mqtts://plant:4000", ("plant", 4000, True)),
        ("mqtt://[::1]:4000", ("::1", 4000, False)),
    ],
)
def test_address(
    mqtt_config: Callable[..., MqttConfig], broker: str, expected: tuple[str, int, bool]
) -> None:
    assert address(mqtt_config(broker, port=1884)) == expected


@pytest.mark.system
def test_a_publish_is_acknowledged_and_arrives(
    mosquitto: Any,
    subscriber: Callable[..., Any],
    mqtt_config: Callable[..., MqttConfig],
    client: Callable[..., Client],
) -> None:
    heard = subscriber(mosquitto.port)
    one = client(mqtt_config(mosquitto.url))
    assert isinstance(one.note(), Connected)
    mids = [one.connection.publish(f"linegate/{n}/event", b"%d" % n) for n in range(3)]
    assert None not in mids
    assert sorted((one.note() for _ in mids), key=lambda a: a.mid) == [
        Acknowledged(mid, None) for mid in mids
    ]
    assert [(m.topic, m.payload) for m in heard.wait("event", 3)] == [
        (f"linegate/{n}/event", b"%d" % n) for n in range(3)
    ]


@pytest.mark.system
@pytest.mark.parametrize(("mqtt311", "level"), [(False, "p5"), (True, "p2")])
def test_mqtt_5_unless_3_1_1_is_asked_for(
    mosquitto: Any,
    mqtt_config: Callable[..., MqttConfig],
    client: Callable[..., Client],
    mqtt311: bool,
    level: str,
) -> None:
    """mosquitto's log names the protocol of each client: p5, or p2 for 3.1.1."""
    one = client(mqtt_config(mosquitto.url), mqtt311=mqtt311)
    assert isinstance(one.note(), Connected)
    one.connection.close()
    mosquitto.stop()
    (line,) = (
        text
        for text in mosquitto.log.splitlines()
        if "New client connected" in text and " as agent-1 " in text
    )
    assert f"({level}," in line


@pytest.mark.system
@pytest.mark.faults
def test_the_last_will_speaks_when_the_process_dies(
    mosquitto: Any, subscriber: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    heard = subscriber(mosquitto.port)
    program = f"""
import time, msgspec
from edge_agent.config.config import MqttConfig
from edge_agent.delivery.connection_events import Will
from edge_agent.delivery.mqtt_connection import Connection
will = Will({STATE!r}, b"offline")
config = msgspec.convert({{"broker": {mosquitto.url!r}}}, MqttConfig)
one = Connection(config, "agent-1", will, lambda note: print(note, flush=True), False)
one.publish({STATE!r}, b"online", retain=True)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        try:
            for note in "TcpConnected", "Connected", "Acknowledged":
                assert process.stdout.readline().startswith(note)
        finally:
            process.kill()
    assert [m.payload for m in heard.wait("state", 2)] == [b"online", b"offline"]
    # Retained: who comes later hears it too, and the birth document no more.
    (late,) = subscriber(mosquitto.port).wait("state")
    assert (late.payload, late.retain) == (b"offline", True)


@pytest.mark.system
def test_a_clean_close_sends_what_was_published_and_no_will(
    mosquitto: Any,
    subscriber: Callable[..., Any],
    mqtt_config: Callable[..., MqttConfig],
    client: Callable[..., Client],
) -> None:
    heard = subscriber(mosquitto.port)
    one = client(mqtt_config(mosquitto.url), will=Will(STATE, b"the will"))
    assert isinstance(one.note(), Connected)
    one.connection.publish(STATE, b"offline", retain=True)
    one.connection.close(flush_s=30)
    heard.wait("state")
    mosquitto.stop()  # in good order: all that it has is delivered or kept
    assert [m.payload for m in heard.of("state")] == [b"offline"]


@pytest.mark.system
@pytest.mark.faults
def test_a_broker_that_goes_away_is_told(
    mosquitto: Any, mqtt_config: Callable[..., MqttConfig], client: Callable[..., Client]
) -> None:
    one = client(mqtt_config(mosquitto.url))
    assert isinstance(one.note(), Connected)
    mosquitto.kill()
    note = one.note()
    assert isinstance(note, Lost)
    assert note.reason
    assert one.connection.publish("linegate/event", b"1") is None


@pytest.mark.system
def test_the_password_comes_from_its_file(
    tmp_path: Path,
    mosquitto_password: Any,
    mqtt_config: Callable[..., MqttConfig],
    client: Callable[..., Client],
) -> None:
    file = tmp_path / "password"
    file.write_text(mosquitto_password.password + "\n", encoding="utf-8")
    config = mqtt_config(
        mosquitto_password.broker.url,
        username=mosquitto_password.username,
        password_file=str(file),
    )
    assert isinstance(client(config).note(), Connected)


@pytest.mark.system
@pytest.mark.parametrize(
    ("password", "mqtt311"), [("wrong", False), ("wrong", True), (None, False)]
)
def test_a_wrong_password_is_told_with_its_reason(
    tmp_path: Path,
    mosquitto_password: Any,
    mqtt_config: Callable[..., MqttConfig],
    client: Callable[..., Client],
    password: str | None,
    mqtt311: bool,
) -> None:
    keys = {}
    if password is not None:
        file = tmp_path / "password"
        file.write_text(password, encoding="utf-8")
        keys = {"username": mosquitto_password.username, "password_file": str(file)}
    note = client(mqtt_config(mosquitto_password.broker.url, **keys), mqtt311=mqtt311).note()
    assert isinstance(note, Lost)
    assert "refused: Not authorized" in note.reason
    assert not note.wants_mqtt311


@pytest.mark.parametrize(
    ("broker", "keys"),
    [
        ("mqtt://127.0.0.1:1", {"username": "line", "password_file": "missing/file"}),
        ("mqtts://127.0.0.1:1", {"ca_file": "missing/file"}),
        ("mqtts://127.0.0.1:1", {"ca_file": "setup.cfg"}),  # is no certificate
    ],
)
def test_credentials_that_cannot_be_read(
    mqtt_config: Callable[..., MqttConfig], broker: str, keys: dict[str, str]
) -> None:
    if keys.get("ca_file") == "setup.cfg":
        keys = {"ca_file": str(ROOT / "setup.cfg")}
    with pytest.raises(BrokerError, match="mqtt: ") as caught:
        Connection(mqtt_config(broker, **keys), "agent-1", WILL, lambda note: None, False)
    assert "\n" not in str(caught.value)


@pytest.mark.system
def test_tls_with_a_ca_of_our_own(
    mosquitto_tls: Any,
    certificates: Any,
    mqtt_config: Callable[..., MqttConfig],
    client: Callable[..., Client],
) -> None:
    one = client(mqtt_config(mosquitto_tls.url, ca_file=str(certificates.ca)))
    assert isinstance(one.note(), Connected)
    mid = one.connection.publish("linegate/event", b"secret")
    assert one.note() == Acknowledged(mid, None)


@pytest.mark.system
@_PAHO_LEAVES_THE_SOCKET
def test_tls_refuses_a_certificate_nobody_vouches_for(
    mosquitto_tls: Any, mqtt_config: Callable[..., MqttConfig], client: Callable[..., Client]
) -> None:
    assert isinstance(client(mqtt_config(mosquitto_tls.url)).note(), Lost)


@pytest.mark.system
@_PAHO_LEAVES_THE_SOCKET
def test_tls_refuses_a_certificate_for_another_host(
    mosquitto_tls: Any,
    certificates: Any,
    mqtt_config: Callable[..., MqttConfig],
    client: Callable[..., Client],
) -> None:
    """The certificate is for 127.0.0.1, not for the name that leads there."""
    url = f"mqtts://localhost:{mosquitto_tls.port}"
    assert isinstance(client(mqtt_config(url, ca_file=str(certificates.ca))).note(), Lost)


def test_a_host_that_refuses_is_told(
    free_port: int, mqtt_config: Callable[..., MqttConfig], client: Callable[..., Client]
) -> None:
    note = client(mqtt_config(f"mqtt://127.0.0.1:{free_port}")).note()
    assert note == Lost(f"no connection to 127.0.0.1:{free_port}")


def test_a_host_without_an_address_is_told(
    mqtt_config: Callable[..., MqttConfig], client: Callable[..., Client]
) -> None:
    note = client(mqtt_config("mqtt://no-such-host.invalid")).note()
    assert note == Lost("no connection to no-such-host.invalid:1883")


def test_a_server_that_speaks_no_mqtt_is_told(
    mqtt_config: Callable[..., MqttConfig], client: Callable[..., Client]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        one = client(mqtt_config(f"mqtt://127.0.0.1:{server.getsockname()[1]}"))
        peer, _ = server.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert isinstance(one.note(), Lost)


def test_a_server_that_never_answers_is_reached_and_no_more(
    mqtt_config: Callable[..., MqttConfig], client: Callable[..., Client]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        one = client(mqtt_config(f"mqtt://127.0.0.1:{server.getsockname()[1]}"))
        peer, _ = server.accept()
        with peer:
            assert b"MQTT\x05" in peer.recv(1000)
            assert one.notes.get(timeout=30) == TcpConnected()
            assert one.notes.empty()


# The embedded broker.


@pytest.fixture
def embedded(free_port: int) -> Iterator[int]:
    broker = EmbeddedBroker(free_port)
    yield free_port
    broker.close()


@pytest.mark.system
def test_the_embedded_broker_carries_messages_and_keeps_the_retained(
    embedded: int,
    subscriber: Callable[..., Any],
    mqtt_config: Callable[..., MqttConfig],
    client: Callable[..., Client],
) -> None:
    heard = subscriber(embedded)
    one = client(mqtt_config("embedded", port=embedded), mqtt311=True)
    assert isinstance(one.note(), Connected)
    mids = [one.connection.publish("linegate/event", b"%d" % n) for n in range(20)]
    mids.append(one.connection.publish(STATE, b"online", retain=True))
    assert sorted(one.note().mid for _ in mids) == sorted(mids)
    assert [m.payload for m in heard.wait("event", 20)] == [b"%d" % n for n in range(20)]
    heard.wait("state")
    # amqtt may send a retained message twice to who comes anew.
    late = subscriber(embedded).wait("state")
    assert {(m.payload, m.retain) for m in late} == {(b"online", True)}


@pytest.mark.system
def test_the_embedded_broker_listens_on_loopback_only(embedded: int) -> None:
    addresses = set()
    for table in Path("/proc/net/tcp"), Path("/proc/net/tcp6"):
        for line in table.read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if int(port, 16) == embedded and state == "0A":  # LISTEN
                addresses.add(address)
    assert addresses == {"0100007F"}, "127.0.0.1 in the kernel's byte order"


@pytest.mark.system
def test_the_embedded_broker_lets_its_port_go(free_port: int) -> None:
    for _ in range(2):
        EmbeddedBroker(free_port).close()


def _close_as_one_comes(broker: EmbeddedBroker, port: int, turns: int) -> None:
    shutdown, late = broker._broker.shutdown, []

    async def one_comes() -> None:
        # The kernel takes it in; the broker may know nothing of it yet.
        late.append(socket.create_connection(("127.0.0.1", port)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await shutdown()

    broker._broker.shutdown = one_comes  # type: ignore[method-assign]
    broker.close()
    late.pop().close()


@pytest.mark.system
@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_the_embedded_broker_leaves_no_connection_open(free_port: int, turns: int) -> None:
    """Whoever is connected when it ends: one who never spoke, one who left, one amid a handshake
    and one who came some turns of its loop before. What it left would be closed by the garbage
    collector, with a warning, in the middle of something else."""
    broker = EmbeddedBroker(free_port)
    silent, gone, half = (socket.create_connection(("127.0.0.1", free_port)) for _ in range(3))
    for one in silent, half:
        one.settimeout(30)
    half.sendall(b"\x10\x20\x00\x04MQTT")
    gone.close()
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        with silent, half:
            _close_as_one_comes(broker, free_port, turns)
            for one in silent, half:
                with contextlib.suppress(ConnectionResetError):
                    assert one.recv(1) == b""
        del broker
        gc.collect()
    assert [str(w.message) for w in left] == []


@pytest.mark.system
def test_the_embedded_broker_refuses_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^mqtt\.port: {port}: .*in use; ") as caught:
            EmbeddedBroker(port)
    assert "\n" not in str(caught.value)
