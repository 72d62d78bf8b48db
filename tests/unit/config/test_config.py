"""The configuration: what is accepted, and that every refusal is one line that names the key."""

from __future__ import annotations

import copy
import datetime
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.config.camera import FolderCamera, SimulatedCamera
from edge_agent.config.config import Config, load, parse
from edge_agent.errors import ConfigError

SMALLEST = """\
[agent]
bundle = "bundle"
[camera]
kind = "folder"
path = "frames"
[mqtt]
broker = "embedded"
"""


def _load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "line.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides)


def _refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text, *overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def _tree(**sections: Any) -> dict[str, Any]:
    """The smallest tree, with sections merged over it."""
    tree: dict[str, Any] = {
        "agent": {"bundle": "bundle"},
        "camera": {"kind": "folder", "path": "frames"},
        "mqtt": {"broker": "embedded"},
    }
    for name, keys in sections.items():
        whole = not isinstance(keys, dict) or "kind" in keys
        tree[name] = keys if whole else {**tree.get(name, {}), **keys}
    return tree


def _parse_refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(tree, "line.toml")
    message = str(caught.value)
    assert message.startswith("line.toml: ")
    assert len(message.splitlines()) == 1
    return message


# What is accepted.


def test_the_smallest_config(tmp_path: Path) -> None:
    config = _load(tmp_path, SMALLEST)
    assert config.agent.bundle == "bundle"
    assert config.camera == FolderCamera(path="frames")
    assert config.mqtt.broker == "embedded"
    assert config.mqtt.port == 1883
    assert config.strip.pixel_width_mm is None
    assert (config.agent.trusted_keys, config.agent.unsigned_bundles) == ((), "refuse")
    assert config.topic_base == "linegate/site/line/agent"


def test_a_full_config(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        """\
        [agent]
        bundle = "/srv/bundle"
        name = "cam-1"
        site = "plant_2"
        line = "L3"
        coil = "C 4711"
        state_dir = "/srv/state"
        precision = "onnx-int8"
        threads = 2
        trusted_keys = ["/srv/a.pub", "/srv/b.pub"]
        unsigned_bundles = "allow"
        providers = ["CUDAExecutionProvider", "openvino", "CPUExecutionProvider"]
        [camera]
        kind = "simulated"
        seed = 7
        width_px = 2048
        height_px = 512
        defects_per_m = 0
        harmless_per_m = 1.5
        realtime = false
        speed = 2
        [strip]
        pixel_width_mm = 0.25
        line_length_mm = 0.5
        [mqtt]
        broker = "mqtts://broker.plant:8884"
        root = "steel"
        username = "line"
        password_file = "/srv/password"
        ca_file = "/srv/ca.pem"
        keepalive_s = 60
        window = 5
        [queues]
        frames = 4
        messages = 10
        spool_bytes = 1000000
        [health]
        interval_s = 1
        """,
    )
    assert isinstance(config.camera, SimulatedCamera)
    assert config.camera.seed == 7
    assert config.camera.speed == 2.0
    assert not config.camera.realtime
    assert config.topic_base == "steel/plant_2/L3/cam-1"
    assert config.state_dir == Path("/srv/state")
    assert config.threads == 2
    assert config.agent.trusted_keys == ("/srv/a.pub", "/srv/b.pub")
    assert config.agent.unsigned_bundles == "allow"
    assert config.agent.providers == ("CUDAExecutionProvider", "openvino", "CPUExecutionProvider")
    assert (config.queues.frames, config.queues.spool_bytes) == (4, 1_000_000)
    assert config.health.interval_s == 1.0


def test_a_config_cannot_be_changed(tmp_path: Path) -> None:
    config = _load(tmp_path, SMALLEST)
    with pytest.raises(AttributeError):
        config.agent.name = "other"  # type: ignore[misc]


def test_threads_0_is_all_the_cores_we_may_use(tmp_path: Path) -> None:
    assert _load(tmp_path, SMALLEST).threads == len(os.sched_getaffinity(0))


def test_state_dir_as_given_then_systemds_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/x")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    assert _load(tmp_path, SMALLEST, "agent.state_dir=mine").state_dir == Path("mine")
    assert _load(tmp_path, SMALLEST).state_dir == Path("/var/lib/x")
    monkeypatch.delenv("STATE_DIRECTORY")
    named = _load(tmp_path, SMALLEST, "agent.name=cam-1")
    assert named.state_dir == Path("/home/me/state/linegate/cam-1")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert named.state_dir == Path("/home/me/.local/state/linegate/cam-1")


@pytest.mark.parametrize(
    "broker",
    [
        "embedded",
        "mqtt://localhost",
        "mqtt://localhost:1884",
        "mqtts://broker.plant.example:8883",
        "mqtt://192.0.2.7",
        "mqtt://[2001:db8::1]:1883",
    ],
)
def test_brokers(broker: str) -> None:
    assert parse(_tree(mqtt={"broker": broker}), "x").mqtt.broker == broker


# --set


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("camera.path=other frames/no 2", "camera", "path", "other frames/no 2"),
        ("camera.path=/srv/frames", "camera", "path", "/srv/frames"),
        ("camera.path=../frames", "camera", "path", "../frames"),
        ('camera.path="12"', "camera", "path", "12"),
        ("camera.loop=true", "camera", "loop", True),
        ("agent.threads=2", "agent", "threads", 2),
        ("agent.name = cam-1", "agent", "name", "cam-1"),
        ("agent.coil=", "agent", "coil", ""),
        ("agent.coil=a=b", "agent", "coil", "a=b"),
        ("mqtt.broker=mqtt://host:1884", "mqtt", "broker", "mqtt://host:1884"),
        ("strip.pixel_width_mm=0.25", "strip", "pixel_width_mm", 0.25),
        ("strip.line_length_mm=1", "strip", "line_length_mm", 1.0),
        ("queues.spool_bytes=1_000_000", "queues", "spool_bytes", 1_000_000),
        ("health.interval_s=1e1", "health", "interval_s", 10.0),
    ],
)
def test_set_overrides_one_key(
    tmp_path: Path, override: str, section: str, key: str, value: Any
) -> None:
    config = _load(tmp_path, SMALLEST, override)
    assert getattr(getattr(config, section), key) == value
    # And no other.
    tree = _tree(**{section: {key: value}})
    assert config == parse(tree, "x")


def test_the_last_override_wins_and_the_file_may_lack_the_section(tmp_path: Path) -> None:
    text = SMALLEST.replace('[mqtt]\nbroker = "embedded"\n', "")
    config = _load(tmp_path, text, "mqtt.broker=mqtt://a", "mqtt.broker=mqtt://b")
    assert config.mqtt.broker == "mqtt://b"


def test_a_whole_section_can_be_set(tmp_path: Path) -> None:
    override = 'camera={kind = "simulated", seed = 4}'
    message = _refusal(tmp_path, SMALLEST, override)
    assert "is not section.key=value" in message  # one key at a time
    config = _load(
        tmp_path,
        SMALLEST.replace('path = "frames"\n', ""),
        "camera.kind=simulated",
        "camera.seed=4",
    )
    assert config.camera == SimulatedCamera(seed=4)


@pytest.mark.parametrize("override", ["", "agent", "agent.name", "name=x", "=x", "agent.=x", "."])
def test_an_override_without_section_key_and_value(tmp_path: Path, override: str) -> None:
    message = _refusal(tmp_path, SMALLEST, override)
    assert message == f"--set: {override!r} is not section.key=value"


def test_an_override_below_a_value(tmp_path: Path) -> None:
    message = _refusal(tmp_path, SMALLEST, "agent.bundle.name=x")
    assert message == "--set: 'agent.bundle.name=x': bundle is not a section"


def test_an_override_is_held_to_the_same_rules(tmp_path: Path) -> None:
    assert "agent.nmae: unknown key; did you mean 'name'?" in _refusal(
        tmp_path, SMALLEST, "agent.nmae=x"
    )
    message = _refusal(tmp_path, SMALLEST, "agent.threads=many")
    assert "agent.threads: 'many' does not fit: expected `int`, got `str`" in message


# Keys.


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("cammera", "did you mean 'camera'?"),
        ("xyz", "known: agent, camera, mqtt, update, commands, strip, evidence, queues, health"),
        ("agent.bundel", "did you mean 'bundle'?"),
        ("agent.zzz", "known: bundle, name, site, line"),
        ("camera.lop", "did you mean 'loop'?"),
        ("camera.zzz", "known: frame_lines, overlap_lines, encoder_counts_per_line, wait,"),
        ("mqtt.brokr", "did you mean 'broker'?"),
        ("mqtt.zzz", "known: broker, root, protocol"),
        ("strip.pixel_width", "did you mean 'pixel_width_mm'?"),
        ("queues.frame", "did you mean 'frames'?"),
        ("health.interval", "did you mean 'interval_s'?"),
    ],
)
def test_an_unknown_key_is_named_with_a_hint(path: str, hint: str) -> None:
    section, _, key = path.rpartition(".")
    tree = _tree(**{section: {key: 1}}) if section else _tree(**{key: 1})
    message = _parse_refusal(tree)
    assert f" {path}: unknown key; {hint}" in message


def test_an_unknown_key_of_the_simulated_camera() -> None:
    message = _parse_refusal(_tree(camera={"kind": "simulated", "sed": 1}))
    assert " camera.sed: unknown key; did you mean 'seed'?" in message


def test_an_unknown_key_while_another_section_is_no_section() -> None:
    message = _parse_refusal(_tree(agent={"nmae": "x"}, camera=5))
    assert " agent.nmae: unknown key; did you mean 'name'?" in message


@pytest.mark.parametrize("key", ["a\nb", "a\rb", "a\u2028b", "a`b", "", " "])
def test_a_strange_key_is_still_one_line(key: str) -> None:
    assert "unknown key" in _parse_refusal(_tree(agent={key: 1}))
    assert "unknown key" in _parse_refusal(_tree(**{key: 1}))


@pytest.mark.parametrize(
    "path", ["agent", "camera", "mqtt", "agent.bundle", "camera.path", "camera.kind", "mqtt.broker"]
)
def test_a_missing_key_is_named(path: str) -> None:
    tree = _tree()
    section, _, key = path.rpartition(".")
    del (tree[section] if section else tree)[key]
    assert _parse_refusal(tree) == f"line.toml: {path}: missing; add it"


# Values.


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("agent.bundle", 5),
        ("agent.trusted_keys", "line.key.pub"),
        ("agent.unsigned_bundles", True),
        ("agent.unsigned_bundles", "maybe"),
        ("agent.bundle", datetime.date(2024, 1, 1)),
        ("agent.name", ""),
        ("agent.name", "a b"),
        ("agent.name", "a/b"),
        ("agent.name", "#"),
        ("agent.name", "-a"),
        ("agent.name", "agent\n"),
        ("agent.name", "a" * 65),
        ("agent.site", "+"),
        ("agent.line", "ä"),
        ("agent.threads", -1),
        ("agent.threads", 257),
        ("agent.threads", 1.5),
        ("agent.threads", True),
        ("agent.threads", "2"),
        ("agent.providers", []),
        ("agent.providers", "CPUExecutionProvider"),
        ("agent.providers", ["cuda"]),
        ("camera.kind", "webcam"),
        ("camera.kind", 3),
        ("camera.kind", "a\nb"),
        ("camera.loop", 1),
        ("camera.loop", "yes"),
        ("mqtt.root", ""),
        ("mqtt.port", 0),
        ("mqtt.port", 65536),
        ("mqtt.keepalive_s", 4),
        ("mqtt.keepalive_s", 3601),
        ("mqtt.window", 0),
        ("mqtt.window", 1001),
        ("strip.pixel_width_mm", 0),
        ("strip.pixel_width_mm", -0.25),
        ("strip.pixel_width_mm", float("nan")),
        ("strip.line_length_mm", "0.25"),
        ("queues.frames", 0),
        ("queues.messages", -5),
        ("queues.spool_bytes", 65535),
        ("health.interval_s", 0.4),
        ("health.interval_s", 3601),
        ("health.interval_s", float("nan")),
        ("agent", 5),
        ("camera", [1]),
        ("mqtt", "embedded"),
        ("strip", False),
    ],
)
def test_a_value_that_does_not_fit_is_named(path: str, value: Any) -> None:
    tree = _tree()
    section, _, key = path.rpartition(".")
    (tree.setdefault(section, {}) if section else tree)[key] = value
    message = _parse_refusal(tree)
    assert message.startswith(f"line.toml: {path}: {value!r} does not fit: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("width_px", 799),
        ("width_px", 16385),
        ("height_px", 0),
        ("defects_per_m", -0.1),
        ("harmless_per_m", 50.1),
        ("speed", 0),
        ("realtime", "no"),
    ],
)
def test_a_value_that_does_not_fit_the_simulated_camera(key: str, value: Any) -> None:
    message = _parse_refusal(_tree(camera={"kind": "simulated", key: value}))
    assert f"camera.{key}: {value!r} does not fit: " in message


@pytest.mark.parametrize(
    ("path", "low", "high"),
    [
        ("mqtt.port", 1, 65535),
        ("mqtt.keepalive_s", 5, 3600),
        ("agent.threads", 0, 256),
        ("health.interval_s", 0.5, 3600),
    ],
)
def test_bounds_are_within(path: str, low: float, high: float) -> None:
    section, _, key = path.rpartition(".")
    for value in (low, high):
        config = parse(_tree(**{section: {key: value}}), "x")
        assert getattr(getattr(config, section), key) == value


@pytest.mark.parametrize(
    "broker",
    [
        "",
        "embeded",
        "localhost",
        "localhost:1883",
        "http://host",
        "tcp://host:1883",
        "mqtt:host",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://host:0",
        "mqtt://host:65536",
        "mqtt://host:mqtt",
        "mqtt://host/path",
        "mqtt://host?query",
        "mqtt://host#fragment",
        "mqtt://user@host",
        "mqtt://user:secret@host",
        "mqtt://:secret@host",
        "mqtt://[::1",
        "mqtt://ho st",
        "mqtt://ho\nst",
        " mqtt://host",
    ],
)
def test_what_is_no_broker(broker: str) -> None:
    message = _parse_refusal(_tree(mqtt={"broker": broker}))
    shown = re.sub("//.*@", "//***@", broker)  # user and password are not repeated
    assert message.startswith(f"line.toml: mqtt.broker: {shown!r} is not a broker; use ")


# Files.


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "gone.toml")
    message = (
        f"--config: {tmp_path / 'gone.toml'}: No such file or directory; give an existing file"
    )
    assert str(caught.value) == message


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--config: .*: Is a directory; give an existing file$"):
        load(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(ConfigError, match=r"line\.toml: larger than 1048576 bytes") as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "agent",
        "[agent",
        "[agent]\nbundle = bundle\n",
        "[agent]\nname = 'a'\nname = 'b'\n",
        '{"agent": {}}',
        "a = " + "[" * 100_000,
        "\0",
    ],
)
def test_what_is_not_toml(tmp_path: Path, text: str) -> None:
    message = _refusal(tmp_path, text)
    assert re.search(r"line\.toml: not TOML: ", message)


def test_what_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_bytes(SMALLEST.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"line\.toml: not TOML: .*utf-8"):
        load(path)


def test_an_empty_file(tmp_path: Path) -> None:
    assert _refusal(tmp_path, "").endswith("line.toml: agent: missing; add it")


# Whatever comes.

SECTIONS = ("agent", "camera", "mqtt", "strip", "queues", "health")
KEYS = (
    *("bundle", "name", "threads", "coil", "kind", "path", "loop", "seed", "speed", "width_px"),
    *("trusted_keys", "unsigned_bundles"),
    *("broker", "port", "root", "pixel_width_mm", "frames", "spool_bytes", "interval_s"),
)
VALUES = st.recursive(
    st.one_of(
        st.text(max_size=12),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.dates(),
        st.sampled_from(("folder", "simulated", "embedded", "mqtt://h", "x")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
TREES = st.dictionaries(
    st.one_of(st.sampled_from(SECTIONS), st.text(max_size=6)),
    st.one_of(
        VALUES,
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=6)), VALUES, max_size=5),
    ),
    max_size=6,
)


def _config_or_one_line(tree: dict[str, Any]) -> None:
    try:
        config = parse(copy.deepcopy(tree), "line.toml")
    except ConfigError as error:
        assert str(error).startswith("line.toml: ")
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(config, Config)
        assert re.fullmatch(r"[\w-]+/[\w-]+/[\w-]+/[\w-]+", config.topic_base)


@given(tree=TREES)
@settings(max_examples=150, deadline=None)
def test_any_tree_is_a_config_or_a_config_error(tree: dict[str, Any]) -> None:
    _config_or_one_line(tree)


@given(
    section=st.sampled_from(SECTIONS),
    key=st.one_of(st.sampled_from(KEYS), st.text(max_size=20)),
    value=VALUES,
)
@settings(max_examples=400, deadline=None)
def test_any_change_of_a_good_tree_is_a_config_or_a_config_error(
    section: str, key: str, value: Any
) -> None:
    tree = _tree()
    tree.setdefault(section, {})[key] = value
    _config_or_one_line(tree)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "line.toml"


@given(data=st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
@settings(max_examples=100, deadline=None)
def test_any_file_is_a_config_or_a_config_error(scratch: Path, data: bytes) -> None:
    scratch.write_bytes(SMALLEST.encode() + data)
    try:
        load(scratch)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1


@given(override=st.one_of(st.text(), st.builds("agent.{}={}".format, st.text(), st.text())))
@settings(max_examples=200, deadline=None)
def test_any_override_is_a_config_or_a_config_error(scratch: Path, override: str) -> None:
    scratch.write_text(SMALLEST, encoding="utf-8")
    try:
        load(scratch, (override,))
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1


def test_a_password_in_the_broker_address_is_not_repeated() -> None:
    tree = {
        "agent": {"bundle": "b"},
        "camera": {"kind": "folder", "path": "p"},
        "mqtt": {"broker": "mqtt://user:secret@host"},
    }
    with pytest.raises(ConfigError) as refused:
        parse(tree, "line.toml")
    assert "secret" not in str(refused.value)
    assert "mqtt.broker" in str(refused.value)


# Commands.


def test_no_command_is_allowed_unless_named() -> None:
    assert parse(_tree(), "line.toml").commands.allow == ()
    for section, said in (
        ({"allow": ["reboot"]}, "commands.allow"),
        ({"allow": "status"}, "commands.allow"),
        ({"reply_topics": ["mes/#"]}, "commands.reply_topics"),
        ({"per_minute": 0}, "commands.per_minute"),
    ):
        assert said in _parse_refusal(_tree(commands=section))


def test_who_allows_stage_says_where_the_bundles_lie() -> None:
    assert _parse_refusal(_tree(commands={"allow": ["stage"]})) == (
        "line.toml: commands.bundle_folder: '': stage is allowed, so say in which folder the "
        "bundles lie that may be staged"
    )
    keys = {"allow": ["stage"], "bundle_folder": "incoming"}
    assert parse(_tree(commands=keys), "line.toml").commands.bundle_folder == "incoming"
