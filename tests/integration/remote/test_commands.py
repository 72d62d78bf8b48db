"""Commands over a real broker: what is allowed is done and answered, and nothing else happens."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

BASE = "linegate/site/line/agent"
ALLOWED = ["status", "picture", "set_coil", "start", "stop"]
LIVE = {"kind": "simulated", "width_px": 800, "height_px": 256, "seed": 7, "defects_per_m": 15}

pytestmark = pytest.mark.system


@dataclass(frozen=True, slots=True)
class Answer:
    topic: str
    payload: bytes
    correlation_data: bytes | None


class Desk:
    """A client that asks, and keeps what is answered."""

    def __init__(self, port: int, eventually: Callable[..., Any], mqtt5: bool = True) -> None:
        self._eventually, self.heard = eventually, list[Answer]()
        self._mqtt5, self._ready = mqtt5, False
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"desk-{uuid.uuid4().hex}",
            protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
        )
        self._client.on_subscribe = lambda *_: setattr(self, "_ready", True)
        self._client.on_message = lambda _c, _u, m: self.heard.append(
            Answer(m.topic, bytes(m.payload), getattr(m.properties, "CorrelationData", None))
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        topics = [f"{BASE}/reply/#", f"{BASE}/evidence/#", f"{BASE}/state"]
        self._client.subscribe([(topic, 1) for topic in topics])
        eventually(lambda: self._ready, "the desk's subscription")

    def send(
        self, name: str, payload: dict[str, Any] | bytes, *, to: str = "", retain: bool = False
    ) -> bytes:
        """Its correlation data."""
        mark, properties = uuid.uuid4().bytes, None
        if self._mqtt5:
            properties = Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = mark
            if to:
                properties.ResponseTopic = to
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sent = self._client.publish(f"{BASE}/command/{name}", data, 1, retain, properties)
        sent.wait_for_publish(10)
        assert sent.is_published()
        return mark

    def ask(self, name: str, payload: dict[str, Any] | bytes, to: str = "") -> Any:
        """The reply, which must come to `to` with our correlation data."""
        mark = self.send(name, payload, to=to)
        mine = self._eventually(
            lambda: [a for a in tuple(self.heard) if a.correlation_data == mark],
            f"a reply to {name}",
        )
        assert [a.topic for a in mine] == [to or f"{BASE}/reply"]
        return json.loads(mine[0].payload)

    def states(self) -> list[dict[str, Any]]:
        return [json.loads(a.payload) for a in tuple(self.heard) if a.topic == f"{BASE}/state"]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def desk(eventually: Callable[..., Any]) -> Iterator[Callable[..., Desk]]:
    """`desk(port, mqtt5=True)`: subscribed when it returns."""
    opened: list[Desk] = []

    def open_(port: int, mqtt5: bool = True) -> Desk:
        opened.append(Desk(port, eventually, mqtt5))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def test_what_is_allowed_is_done_and_answered(
    config_file: Callable[..., Path],
    mosquitto: Any,
    agent: Callable[..., Any],
    subscriber: Callable[..., Any],
    desk: Callable[..., Desk],
    eventually: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
) -> None:
    at = desk(mosquitto.port)
    at.send("stop", {"id": "of-yesterday"}, retain=True)  # meant for who ran then
    heard = subscriber(mosquitto.port)
    running = agent(config_file(mosquitto.url, camera=LIVE, commands={"allow": ALLOWED}))
    heard.wait("event", 2)

    status = at.ask("status", {"id": "1"}, to=f"{BASE}/reply/mes-7")
    check_schema("reply", status)
    assert (status["ok"], status["id"], status["command"]) == (True, "1", "status")
    assert status["result"]["state"]["inspecting"] is True, "a retained command is not obeyed"
    assert status["result"]["commands"] == {}
    check_schema("health", status["result"]["health"])

    assert at.ask("set_coil", {"id": "2", "coil": "C-815"})["ok"]
    eventually(lambda: heard.numbered()[-1]["coil"] == "C-815", "an event of the new coil")

    picture = at.ask("picture", {"id": "3"})["result"]
    (shown,) = [a for a in at.heard if a.topic == picture["topic"]]
    image = cv2.imdecode(np.frombuffer(shown.payload, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape[:2] == (picture["height_px"], picture["width_px"]) == (256, 800)
    assert image.std() > 0

    assert at.ask("stop", {"id": "4"})["result"] == {"inspecting": False}
    eventually(
        lambda: [g["reason"] for g in heard.numbered() if "reason" in g].count("stopped") > 2,
        "gaps that say why",
    )
    eventually(lambda: at.states()[-1]["inspecting"] is False, "the state says so")
    seen = len(heard.of("event"))
    assert at.ask("start", {"id": "5"})["ok"]
    heard.wait("event", seen + 2)
    eventually(lambda: at.states()[-1]["inspecting"] is True, "the state says so again")

    refused = at.ask("set_coil", {"id": "6", "coil": 7})
    assert (refused["ok"], refused["result"]) == (False, None)
    assert "$.coil" in refused["error"]
    silent = at.send("stage", {"id": "7", "bundle": "any"})  # not allowed: nobody listens there
    assert at.ask("status", {"id": "8"})["result"]["commands"] == {"done": 5, "refused": 1}
    assert silent not in [a.correlation_data for a in at.heard]

    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr
    summary = done.summary
    assert summary["gaps"]["stopped"] >= 3
    assert summary["frames_in_progress"] == 0
    assert summary["frames_captured"] == summary["frames_inspected"] + sum(summary["gaps"].values())


def test_no_command_reaches_an_agent_that_allows_none(
    config_file: Callable[..., Path],
    mosquitto_with: Callable[..., Any],
    agent: Callable[..., Any],
    subscriber: Callable[..., Any],
    desk: Callable[..., Desk],
) -> None:
    broker = mosquitto_with("allow_anonymous true", "log_type all")
    at, heard = desk(broker.port), subscriber(broker.port, f"{BASE}/event")
    running = agent(config_file(broker.url, camera={"loop": True}))
    heard.wait("event", 2)
    for name in (*ALLOWED, "stage"):
        at.send(name, {"id": name})
    seen = len(heard.of("event"))
    heard.wait("event", seen + 20)
    assert "/command/stop" in broker.log, "it came to the broker"
    sent_on = [line for line in broker.log.splitlines() if "Sending PUBLISH" in line]
    assert sent_on
    assert not [line for line in sent_on if "/command/" in line]
    assert not [a for a in at.heard if "/reply" in a.topic]
    running.terminate()
    assert running.ended().summary["gaps"] == {}


def test_a_picture_that_the_broker_does_not_take_does_not_end_the_connection(
    config_file: Callable[..., Path],
    mosquitto_with: Callable[..., Any],
    agent: Callable[..., Any],
    desk: Callable[..., Desk],
    eventually: Callable[..., Any],
) -> None:
    broker = mosquitto_with("allow_anonymous true", "log_type all", "max_packet_size 20000")
    at = desk(broker.port)
    running = agent(config_file(broker.url, camera=LIVE, commands={"allow": ALLOWED}))
    eventually(at.states, "the agent's birth document")
    picture = at.ask("picture", {"id": "1"})
    assert picture["ok"]
    assert picture["result"]["size_bytes"] > 20000
    assert at.ask("status", {"id": "2"})["ok"]
    assert not [a for a in at.heard if "/evidence/" in a.topic]
    came = [line for line in broker.log.splitlines() if " as linegate-site-line-agent" in line]
    assert len(came) == 1, came
    eventually(lambda: "the broker takes 20000" in running.stderr, "the journal says so")


def test_without_mqtt5_the_id_tells_which_reply_it_is(
    config_file: Callable[..., Path],
    free_port: int,
    agent: Callable[..., Any],
    desk: Callable[..., Desk],
    eventually: Callable[..., Any],
) -> None:
    """Over the agent's own broker."""
    config = config_file(
        "embedded",
        mqtt={"port": free_port},
        camera={"loop": True},
        commands={"allow": ["set_coil"]},
    )
    running = agent(config)
    eventually(lambda: accepts(free_port) or not running.running, "the embedded broker")
    at = desk(free_port, mqtt5=False)
    eventually(at.states, "the agent's birth document")
    # Its subscription may come a moment after: the same id is done once, however often it is asked.
    replies: list[dict[str, Any]] = []

    def replied() -> bool:
        at.send("set_coil", {"id": "a", "coil": "K"})
        replies[:] = [json.loads(a.payload) for a in tuple(at.heard) if a.topic == f"{BASE}/reply"]
        return bool(replies)

    eventually(replied, "a reply")
    assert {(r["id"], r["ok"], r["result"]["coil"]) for r in replies} == {("a", True, "K")}


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
