"""The agent's configuration: one frozen tree.

Relative paths are taken from the folder the command runs in.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from edge_agent.config import loader
from edge_agent.config.camera import Camera
from edge_agent.config.fields import (
    CommandName,
    ConfigPart,
    _Count,
    _Name,
    _Port,
    _Positive,
    _Provider,
    _Share,
    _SizeMm,
    _Topic,
)
from edge_agent.errors import ConfigError


class AgentConfig(ConfigPart, frozen=True, kw_only=True):
    """`precision`: auto, float32, int8 or a label such as onnx-int8. `threads` 0: all cores.

    `trusted_keys`: .pub files of those whose bundles may run. `unsigned_bundles` allow: one
    without a signature runs too.
    `providers`: where ONNX artifacts may run, each tried: execution providers of onnxruntime, and
    openvino, which is a library of its own. What is not named is not used.
    """

    bundle: str
    name: _Name = "agent"
    site: _Name = "site"
    line: _Name = "line"
    coil: str = ""
    state_dir: str = ""
    precision: str = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    trusted_keys: tuple[str, ...] = ()
    unsigned_bundles: Literal["refuse", "allow"] = "refuse"
    providers: Annotated[tuple[_Provider, ...], msgspec.Meta(min_length=1, max_length=8)] = (
        "CPUExecutionProvider",
    )


class StripConfig(ConfigPart, frozen=True, kw_only=True):
    """Size of a pixel on the steel; without it events carry no millimetres or metres."""

    pixel_width_mm: _SizeMm | None = None
    line_length_mm: _SizeMm | None = None


class MqttConfig(ConfigPart, frozen=True, kw_only=True):
    """`broker`: "embedded", "mqtt://host[:port]" or "mqtts://host[:port]" (TLS, verified).

    `port` is for the embedded broker, which listens on loopback only. `protocol` auto tries
    MQTT 5 first and falls back; a broker that leaves MQTT 5 unanswered costs 3 s once.
    Each `…_file` is a path or `credential:NAME`, a credential of the systemd unit.
    """

    broker: str
    root: _Name = "linegate"
    protocol: Literal["auto", "3.1.1"] = "auto"
    port: _Port = 1883
    username: str = ""
    username_file: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30
    window: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20


class QueuesConfig(ConfigPart, frozen=True, kw_only=True):
    """Bounds between the threads, in frames and in messages, and of the spool on the disk.

    `history`: so many messages stay in the spool after they were sent, as long as there is room,
    for `edge-agent tail` and `edge-agent spool replay`.
    """

    frames: _Count = 8
    messages: _Count = 1000
    spool_bytes: Annotated[int, msgspec.Meta(ge=131072)] = 256 << 20
    history: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 2000


class HealthConfig(ConfigPart, frozen=True, kw_only=True):
    """`status_file`: for `edge-agent status`; empty is status.json in the state folder.

    `metrics_port` 0: no metrics. `metrics_host`: whoever reaches it may read them.
    """

    interval_s: Annotated[float, msgspec.Meta(ge=0.5, le=3600)] = 5.0
    status_file: str = ""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    metrics_host: str = "127.0.0.1"


class UpdateConfig(ConfigPart, frozen=True, kw_only=True):
    """How a staged bundle is judged.

    It is tried on `trial_frames` frames of the line and must then prove itself on `prove_frames`
    as the one that runs. `budget_ms`: for gate and segmenter together, in 95 of 100 frames;
    without it the running bundle is the measure. `max_turned_share`: of the frames.
    """

    trial_frames: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200
    prove_frames: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200
    budget_ms: _Positive | None = None
    max_turned_share: _Share = 1.0


class CommandsConfig(ConfigPart, frozen=True, kw_only=True):
    """Which commands over MQTT are obeyed: none unless named in `allow`.

    `bundle_folder` holds the bundles that may be staged by name. `per_minute` bounds all commands
    together. A reply goes to the agent's own `reply` topic, or where the command asks for it if
    that is below it or below one of `reply_topics`.
    """

    allow: tuple[CommandName, ...] = ()
    bundle_folder: str = ""
    reply_topics: tuple[_Topic, ...] = ()
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=6000)] = 60


class EvidenceConfig(ConfigPart, frozen=True, kw_only=True):
    """Pictures of frames with defects, sent behind their events. At most `per_minute`: events
    beyond that have none. `max_bytes`: a larger picture is halved until it fits."""

    pictures: bool = False
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=6000)] = 60
    jpeg_quality: Annotated[int, msgspec.Meta(ge=10, le=100)] = 85
    max_bytes: Annotated[int, msgspec.Meta(ge=16384, le=16 << 20)] = 512 << 10


class Config(ConfigPart, frozen=True, kw_only=True):
    agent: AgentConfig
    camera: Camera
    mqtt: MqttConfig
    update: UpdateConfig = UpdateConfig()
    commands: CommandsConfig = CommandsConfig()
    strip: StripConfig = StripConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    queues: QueuesConfig = QueuesConfig()
    health: HealthConfig = HealthConfig()

    @property
    def topic_base(self) -> str:
        return f"{self.mqtt.root}/{self.agent.site}/{self.agent.line}/{self.agent.name}"

    @property
    def state_dir(self) -> Path:
        """agent.state_dir; else systemd's STATE_DIRECTORY; else below the user's state folder."""
        given = self.agent.state_dir or os.environ.get("STATE_DIRECTORY", "")
        if given:
            return Path(given)
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(home) / "linegate" / self.agent.name

    @property
    def spool_file(self) -> Path:
        return self.state_dir / "spool.sqlite3"

    @property
    def status_file(self) -> Path:
        given = self.health.status_file
        return Path(given) if given else self.state_dir / "status.json"

    @property
    def threads(self) -> int:
        return self.agent.threads or len(os.sched_getaffinity(0))


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read and check the file; `overrides` are "section.key=value". Raises ConfigError."""
    return _checked(loader.load(path, Config, overrides), str(path))


def parse(tree: dict[str, Any], source: str) -> Config:
    """A TOML tree as a Config. Raises ConfigError; `source` is for the message."""
    return _checked(loader.parse(tree, Config, source), source)


def _checked(config: Config, source: str) -> Config:
    """What no type can say."""
    _check_broker(config.mqtt, source)
    if "stage" in config.commands.allow and not config.commands.bundle_folder:
        raise ConfigError(
            f"{source}: commands.bundle_folder: '': stage is allowed, so say in which folder the "
            "bundles lie that may be staged"
        )
    return config


def _check_broker(mqtt: MqttConfig, source: str) -> None:
    if mqtt.broker == "embedded":
        return
    shown = loader.masked(mqtt.broker)
    fix = 'use "embedded", "mqtt://host:port" or "mqtts://host:port"'
    try:
        url = urlsplit(mqtt.broker)
        fits = url.scheme in ("mqtt", "mqtts") and url.hostname and (url.port is None or url.port)
        odd = url.path or url.query or url.fragment or "@" in url.netloc
        (url.hostname or "").encode("idna")  # a..b is no name: resolving it would raise
    except ValueError:
        fits = odd = None
    # urlsplit drops line breaks without a word.
    if not fits or odd or any(c.isspace() for c in mqtt.broker):
        raise ConfigError(f"{source}: mqtt.broker: {shown!r} is not a broker; {fix}")
