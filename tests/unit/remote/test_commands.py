"""Commands over MQTT: what is asked is done once, and whatever else comes does nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_agent.clock import Clock
from edge_agent.config import config as configs
from edge_agent.delivery.connection_events import Incoming
from edge_agent.errors import BundleError
from edge_agent.frame import Image
from edge_agent.messages.commands import COMMANDS, Reply
from edge_agent.remote.commands import MAX_PAYLOAD_BYTES, CommandReceiver, CommandRefused

BASE = "linegate/site/line/agent"
CASES = int(os.environ.get("COMMAND_FUZZ_CASES", "500"))


class FakeLine:
    """What was asked of the line, in order."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.image: Image | None = np.full((4, 8), 7, np.uint8)

    def status(self) -> dict[str, Any]:
        self.asked.append("status")
        return {"health": {}}

    def picture(self) -> tuple[int, Image]:
        self.asked.append("picture")
        if self.image is None:
            raise CommandRefused("picture: no frame within 5 s")
        return 41, self.image

    def set_coil(self, coil: str) -> None:
        self.asked.append(("set_coil", coil))

    def start(self) -> None:
        self.asked.append("start")

    def stop(self) -> None:
        self.asked.append("stop")

    def stage(self, folder: Path) -> str:
        self.asked.append(("stage", folder))
        if not (folder / "bundle.json").exists():
            raise BundleError(f"{folder}: is this folder a whole bundle?")
        return "a" * 64


class Rig:
    def __init__(self, folder: Path, **rules: Any) -> None:
        self.bundles = folder / "bundles"
        (self.bundles / "steel-2").mkdir(parents=True, exist_ok=True)
        (self.bundles / "steel-2" / "bundle.json").write_text("{}", encoding="utf-8")
        (folder / "secret").mkdir(exist_ok=True)
        keys = {"allow": list(COMMANDS), "bundle_folder": str(self.bundles), **rules}
        tree = {
            "agent": {"bundle": ""},
            "camera": {"kind": "simulated"},
            "mqtt": {"broker": "embedded"},
            "commands": keys,
        }
        self.line, self.now_s = FakeLine(), 0.0
        self.said: list[tuple[str, bytes, bytes | None]] = []
        self.remote = CommandReceiver(
            config=configs.parse(tree, "test"),
            boot_id="b" * 32,
            line=self.line,
            say=lambda topic, data, correlation_data=None: self.said.append(
                (topic, data, correlation_data)
            ),
            clock=Clock(monotonic_ns=lambda: round(self.now_s * 1e9)),
        )

    def send(self, name: str, payload: Any, **properties: Any) -> Reply | None:
        """The reply, where there was one."""
        before = len(self.said)
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.remote.handle(Incoming(f"{BASE}/command/{name}", data, **properties))
        replies = [one for one in self.said[before:] if "/evidence/" not in one[0]]
        return msgspec.json.decode(replies[-1][1], type=Reply) if replies else None


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_each_command_does_its_work_and_is_answered(
    rig: Rig, check_schema: Callable[[str, Any], None]
) -> None:
    commands = [
        ("set_coil", {"id": "1", "coil": "C-8"}, ("set_coil", "C-8"), {"coil": "C-8"}),
        ("stop", {"id": "2"}, "stop", {"inspecting": False}),
        ("start", {"id": "3"}, "start", {"inspecting": True}),
        (
            "stage",
            {"id": "4", "bundle": "steel-2"},
            ("stage", rig.bundles / "steel-2"),
            {"sha256": "a" * 64},
        ),
    ]
    for name, payload, asked, result in commands:
        reply = rig.send(name, payload)
        assert reply is not None
        assert reply.ok, reply
        assert (reply.command, reply.id, reply.result) == (name, payload["id"], result)
        assert rig.line.asked[-1] == asked
        check_schema(f"command.{name}", payload)
        check_schema("reply", json.loads(rig.said[-1][1]))
    status = rig.send("status", {"id": "5"})
    assert status is not None
    assert status.result == {"health": {}, "commands": {"done": 4}}
    assert all(topic == f"{BASE}/reply" for topic, _, _ in rig.said)


def test_nothing_is_obeyed_unless_it_is_allowed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, allow=["status"])
    assert rig.remote.subscriptions == (f"{BASE}/command/status",)
    assert Rig(tmp_path, allow=[]).remote.subscriptions == ()
    assert rig.send("stop", {"id": "1"}) is None
    assert (rig.line.asked, rig.remote.counts()) == ([], {"refused": 1})


def test_a_picture_is_a_jpeg_of_bounded_size(rig: Rig) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (2048, 4096, 3), np.uint8)
    for number, image in enumerate((np.full((4, 8), 7, np.uint8), noise)):
        rig.line.image = image
        reply = rig.send("picture", {"id": str(number)})
        assert reply is not None
        assert reply.result is not None
        topic, data, _ = rig.said[-2]
        assert topic == reply.result["topic"] == f"{BASE}/evidence/bbbbbbbb-41"
        assert len(data) == reply.result["size_bytes"] <= 512 << 10
        shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert shown.shape[:2] == (reply.result["height_px"], reply.result["width_px"])
        assert shown.ndim == image.ndim
    rig.line.image = None
    reply = rig.send("picture", {"id": "none"})
    assert reply is not None
    assert not reply.ok
    assert reply.error == "picture: no frame within 5 s"


def test_the_same_id_is_answered_again_and_not_done_again(rig: Rig) -> None:
    first = rig.send("set_coil", {"id": "x", "coil": "A"})
    assert rig.send("set_coil", {"id": "x", "coil": "A"}) == first
    assert rig.line.asked == [("set_coil", "A")]
    other = rig.send("set_coil", {"id": "x", "coil": "B"})
    assert other is not None
    assert (other.ok, other.error) == (
        False,
        "id: was used for another command",
    )
    assert rig.send("stop", {"id": "x"}) == msgspec.structs.replace(other, command="stop")
    assert rig.line.asked == [("set_coil", "A")]
    assert rig.remote.counts() == {"done": 1, "refused": 2, "repeated": 1}


def test_a_reply_goes_where_it_may(tmp_path: Path) -> None:
    rig = Rig(tmp_path, reply_topics=["mes/answers"], per_minute=1000)
    asked = {
        f"{BASE}/reply": f"{BASE}/reply",
        f"{BASE}/reply/mes-7": f"{BASE}/reply/mes-7",
        "mes/answers/7": "mes/answers/7",
        "mes/answersX": f"{BASE}/reply",
        f"{BASE}/command/stop": f"{BASE}/reply",
        f"{BASE}/reply/#": f"{BASE}/reply",
        "mes/answers/" + "x" * 300: f"{BASE}/reply",
        "": f"{BASE}/reply",
    }
    for number, (wanted, got) in enumerate(asked.items()):
        rig.send("stop", {"id": str(number)}, response_topic=wanted, correlation_data=b"\0\1")
        assert rig.said[-1][0] == got
        assert rig.said[-1][2] == b"\0\1"


def test_what_is_ignored_is_counted_and_not_answered(rig: Rig) -> None:
    assert rig.send("stop", {"id": "1"}, retained=True) is None
    assert rig.send("stop", b" " * (MAX_PAYLOAD_BYTES + 1)) is None
    assert rig.send("stop", {"id": "1"}, correlation_data=b"x" * 2000) is None
    assert rig.remote.counts() == {"retained": 1, "too_large": 2}
    assert rig.line.asked == []


def test_commands_are_limited_in_rate(tmp_path: Path) -> None:
    rig = Rig(tmp_path, per_minute=6)
    answered = [rig.send("stop", {"id": str(i)}) is not None for i in range(10)]
    assert answered == [True] * 6 + [False] * 4
    rig.now_s += 10
    assert [rig.send("stop", {"id": f"b{i}"}) is not None for i in range(2)] == [True, False]
    assert rig.remote.counts() == {"done": 7, "too_many": 5}


@pytest.mark.parametrize(
    "bundle",
    [
        "..",
        ".",
        "../secret",
        "steel-2/../..",
        "/etc",
        "",
        "steel-2\n",
        "steel-2\0",
        "-x",
        "a" * 200,
    ],
)
def test_no_message_becomes_a_path(rig: Rig, bundle: str) -> None:
    reply = rig.send("stage", {"id": "1", "bundle": bundle})
    assert reply is not None
    assert not reply.ok
    assert rig.line.asked == []


def test_only_what_lies_in_the_bundle_folder_is_staged(rig: Rig, tmp_path: Path) -> None:
    (rig.bundles / "link").symlink_to(tmp_path / "secret")
    (rig.bundles / "half").mkdir()
    for name, said in (
        ("nonesuch", "nonesuch is not in commands.bundle_folder"),
        ("link", "link is not in commands.bundle_folder"),
        ("half", "is this folder a whole bundle?"),
    ):
        reply = rig.send("stage", {"id": name, "bundle": name})
        assert reply is not None
        assert not reply.ok
        assert said in reply.error
    assert rig.line.asked == [("stage", rig.bundles / "half")]
    gone = Rig(tmp_path / "other", bundle_folder=str(tmp_path / "gone"))
    reply = gone.send("stage", {"id": "1", "bundle": "x"})
    assert reply is not None
    assert reply.error == "stage: commands.bundle_folder: No such file or directory"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("id", "coil", "bundle", "x")) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=8,
)
_NEAR = st.fixed_dictionaries(
    {"id": st.sampled_from(("1", "2", "a:b")) | st.text(max_size=5)},
    optional={
        "coil": st.text(max_size=70) | _JSON,
        "bundle": st.sampled_from(("steel-2", "..", "../secret", "half")) | st.text(max_size=9),
        "more": _JSON,
    },
)
_PAYLOAD = (
    st.binary(max_size=200)
    | (_JSON | _NEAR).map(lambda tree: json.dumps(tree).encode())
    | st.tuples(_NEAR, st.integers(0, 200), st.integers(0, 255)).map(
        lambda made: _changed(json.dumps(made[0]).encode(), made[1], made[2])
    )
)


def _changed(data: bytes, at: int, byte: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([byte]) + data[at + 1 :]


@settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(name="stop", payload=b"[" * 60_000, response=None)
@example(name="stop", payload=b'{"id":' * 9_000, response=None)
@given(
    name=st.sampled_from(sorted(COMMANDS)) | st.text(max_size=12),
    payload=_PAYLOAD,
    response=st.none() | st.text(max_size=40) | st.just(f"{BASE}/reply/x"),
)
def test_any_payload_is_done_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, payload: bytes, response: str | None
) -> None:
    rig = _rig_for_fuzz(tmp_path_factory)
    rig.line.asked.clear()
    rig.said.clear()
    rig.now_s += 60
    before = sum(rig.remote.counts().values())
    rig.send(name, payload, response_topic=response, correlation_data=payload[:8])
    assert sum(rig.remote.counts().values()) == before + 1, "each is counted once"
    for topic, data, _ in rig.said:
        assert topic.startswith((f"{BASE}/reply", f"{BASE}/evidence/"))
        assert len(data) < 4096
    for asked in rig.line.asked:
        if asked[0] == "stage":
            assert asked[1].parent == rig.bundles
    assert len(rig.line.asked) <= 1
    assert len(rig.remote._done) <= 256


_FUZZED: list[Rig] = []


def _rig_for_fuzz(factory: pytest.TempPathFactory) -> Rig:
    if not _FUZZED:
        _FUZZED.append(Rig(factory.mktemp("fuzz")))
    return _FUZZED[0]
