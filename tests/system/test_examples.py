"""The examples that integrators copy, run as they lie there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from paho.mqtt import publish as paho_publish

from tests.support.paths import ROOT

EXAMPLES = ROOT / "docs" / "examples"
FLOW = EXAMPLES / "node-red-flow.json"
BASE = "linegate/site/line/agent"


def _event(seq: int, boot_id: str = "b", **changes: Any) -> dict[str, Any]:
    data = {"agent": "agent", "site": "site", "line": "line", "boot_id": boot_id, "seq": seq}
    data |= {"replayed": False, "frame_id": seq, **changes}
    kind = "gap" if "reason" in changes else "defect"
    if kind == "defect":
        data["defects"] = [{"class_name": "pit", "confidence": 0.91}]
    return {"type": f"linegate.{kind}.v1", "time": "2026-01-01T00:00:00Z", "data": data}


@pytest.fixture
def example() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(EXAMPLES / "subscriber.py"), *words]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for one in started:
        with one:
            one.kill()


@pytest.mark.system
def test_the_subscriber_shows_each_message_once_whatever_comes_twice(
    mosquitto_with: Callable[..., Any],
    example: Callable[..., subprocess.Popen[str]],
    eventually: Callable[..., Any],
) -> None:
    mosquitto = mosquitto_with("allow_anonymous true", "log_type all")
    said: list[tuple[str, Any]] = [
        ("event", _event(1)),
        ("event", _event(1, replayed=True)),
        ("event", b"\xff no json"),
        ("event", b"[1]"),
        ("event", b"[" * 100_000),
        ("gap", _event(2, reason="overload", detail="8 frames waiting")),
        ("event", _event(1, boot_id="another", replayed=True)),
        ("gap", _event(2, reason="overload", detail="8 frames waiting")),
        ("event", _event(3)),
    ]
    mosquitto.stop()  # it comes up after its subscriber
    running = example("--port", str(mosquitto.port))
    mosquitto.start()
    eventually(lambda: "SUBACK to linegate-example" in mosquitto.log, "its subscription")
    _publish(mosquitto.port, said)
    lines = _lines(running, 7)
    assert [line for line in lines if not line.startswith("not understood: ")] == [
        "2026-01-01T00:00:00Z site/line/agent frame 1: pit 0.91",
        "2026-01-01T00:00:00Z site/line/agent frame 2: NOT INSPECTED, overload: 8 frames waiting",
        "2026-01-01T00:00:00Z site/line/agent frame 1 (replayed): pit 0.91",
        "2026-01-01T00:00:00Z site/line/agent frame 3: pit 0.91",
    ]
    # While it is away the broker keeps what is said.
    running.kill()
    running.wait()
    _publish(mosquitto.port, [("event", _event(4))])
    again = example("--port", str(mosquitto.port))
    line = _lines(again, 1)[0]
    if "frame 3" in line:  # it was killed before its last acknowledgement was out
        line = _lines(again, 1)[0]
    assert "frame 4" in line


def _publish(port: int, said: list[tuple[str, Any]]) -> None:
    paho_publish.multiple(
        [
            (f"{BASE}/{kind}", x if isinstance(x, bytes) else json.dumps(x), 1, False)
            for kind, x in said
        ],
        port=port,
    )


def _lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def test_the_flow_is_whole() -> None:
    nodes = {node["id"]: node for node in json.loads(FLOW.read_bytes())}
    for node in nodes.values():
        for wire in (to for output in node.get("wires", ()) for to in output):
            assert wire in nodes
        assert node.get("broker", "linegate-broker") in {*nodes, "127.0.0.1"}
    subscribed = [node for node in nodes.values() if node["type"] == "mqtt in"]
    assert {node["topic"] for node in subscribed} == {
        "linegate/+/+/+/event",
        "linegate/+/+/+/gap",
    }
    assert {node["qos"] for node in subscribed} == {"1"}


_RUN_THE_FUNCTIONS = """
const nodes = JSON.parse(require("fs").readFileSync(process.argv[1]));
const kept = new Map(), warned = [], out = [];
const context = { get: k => kept.get(k), set: (k, v) => kept.set(k, v) };
const node = { warn: text => warned.push(text) };
const of = id => new Function("msg", "context", "node", nodes.find(n => n.id === id).func);
const once = of("linegate-once"), line = of("linegate-line");
for (const payload of JSON.parse(require("fs").readFileSync(0))) {
    const msg = once({ topic: "t", payload }, context, node);
    if (msg) out.push(line(msg, context, node).payload);
}
console.log(JSON.stringify({ out, warned }));
"""


def test_the_flow_passes_each_message_once() -> None:
    """Its two functions, run by node as Node-RED runs them: with msg, context and node."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")
    payloads = [_event(1), _event(1), None, 3, {"data": {}}]
    payloads += [_event(2, reason="overload", detail="why"), _event(1, boot_id="c"), _event(2)]
    done = subprocess.run(
        [program, "-e", _RUN_THE_FUNCTIONS, str(FLOW)],
        input=json.dumps(payloads),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    time = "2026-01-01T00:00:00Z"
    assert found["out"] == [
        f"{time} agent frame 1: pit 0.91",
        f"{time} agent frame 2: NOT INSPECTED, overload: why",
        f"{time} agent frame 1: pit 0.91",
    ]
    assert found["warned"] == ["not understood: t"] * 3
