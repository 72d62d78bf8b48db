"""Configuration of the agent as one frozen tree.

Relative paths start at the current folder of the command.
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
    """Agent: its names, its bundle and how the bundle runs.

    `precision`: auto, float32, int8 or a label such as onnx-int8. `threads`: 0 is all cores.
    `trusted_keys`: .pub files of the keys whose bundles may run. `unsigned_bundles`: "allow" runs
    bundles without a signature too. `providers`: where ONNX artifacts may run, each is tried:
    execution providers of onnxruntime, and openvino, which is a separate library. Others are not
    used.
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
    """Pixel size on the steel; without it, events carry no millimetres or metres."""

    pixel_width_mm: _SizeMm | None = None
    line_length_mm: _SizeMm | None = None


class MqttConfig(ConfigPart, frozen=True, kw_only=True):
    """Broker and connection.

    `broker`: "embedded", "mqtt://host[:port]" or "mqtts://host[:port]" (TLS, verified). `port` is
    for the embedded broker, which listens on loopback only. `protocol`: "auto" tries MQTT 5 first
    and falls back; a broker that does not answer MQTT 5 costs 3 s once. Each `…_file` is a path or
    `credential:NAME`, a credential of the systemd unit.
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
    """Limits of the queues between threads, in frames and messages, and of the spool on the disk.

    `history`: number of sent messages kept in the spool, while there is room, for `edge-agent tail`
    and `edge-agent spool replay`.
    """

    frames: _Count = 8
    messages: _Count = 1000
    spool_bytes: Annotated[int, msgspec.Meta(ge=131072)] = 256 << 20
    history: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 2000


class HealthConfig(ConfigPart, frozen=True, kw_only=True):
    """Health, status file and metrics.

    `status_file`: for `edge-agent status`; empty is status.json in the state directory.
    `metrics_port`: 0 is no metrics. `metrics_host`: everyone who can reach it can read the metrics.
    """

    interval_s: Annotated[float, msgspec.Meta(ge=0.5, le=3600)] = 5.0
    status_file: str = ""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    metrics_host: str = "127.0.0.1"


class UpdateConfig(ConfigPart, frozen=True, kw_only=True):
    """Criteria for a staged bundle.

    It is tried on `trial_frames` frames of the line, and is then on probation for `prove_frames` as
    the running bundle. `budget_ms`: time for gate and segmenter together, in 95 of 100 frames;
    without it, the running bundle is the reference. `max_turned_share`: permitted share of frames
    judged differently.
    """

    trial_frames: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200
    prove_frames: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200
    budget_ms: _Positive | None = None
    max_turned_share: _Share = 1.0


class CommandsConfig(ConfigPart, frozen=True, kw_only=True):
    """Commands over MQTT that the agent accepts; none unless named in `allow`.

    `bundle_folder` holds the bundles that may be staged by name. `per_minute` limits all commands
    together. A reply goes to the agent's own `reply` topic, or to the topic that the command names,
    if that is below it or below one of `reply_topics`.
    """

    allow: tuple[CommandName, ...] = ()
    bundle_folder: str = ""
    reply_topics: tuple[_Topic, ...] = ()
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=6000)] = 60


class EvidenceConfig(ConfigPart, frozen=True, kw_only=True):
    """Pictures of defective frames, sent after their events.

    `per_minute`: events beyond this rate have no picture. `max_bytes`: a larger picture is halved
    in size until it fits.
    """

    pictures: bool = False
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=6000)] = 60
    jpeg_quality: Annotated[int, msgspec.Meta(ge=10, le=100)] = 85
    max_bytes: Annotated[int, msgspec.Meta(ge=16384, le=16 << 20)] = 512 << 10


class Config(ConfigPart, frozen=True, kw_only=True):
    """Complete configuration of an agent."""

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
        """Return the first levels of the agent's topics: root/site/line/name."""
        return f"{self.mqtt.root}/{self.agent.site}/{self.agent.line}/{self.agent.name}"

    @property
    def state_dir(self) -> Path:
        """Return agent.state_dir, else $STATE_DIRECTORY (systemd), else the user's state folder."""
        given = self.agent.state_dir or os.environ.get("STATE_DIRECTORY", "")
        if given:
            return Path(given)
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(home) / "linegate" / self.agent.name

    @property
    def spool_file(self) -> Path:
        """Return the path of the spool's database."""
        return self.state_dir / "spool.sqlite3"

    @property
    def status_file(self) -> Path:
        """Return health.status_file, or status.json in the state directory."""
        given = self.health.status_file
        return Path(given) if given else self.state_dir / "status.json"

    @property
    def threads(self) -> int:
        """Return the number of threads per network; default: the cores of this process."""
        return self.agent.threads or len(os.sched_getaffinity(0))


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Return the checked configuration file. Raises ConfigError.

    `overrides` have the form "section.key=value".
    """
    return _checked(loader.load(path, Config, overrides), str(path))


def parse(tree: dict[str, Any], source: str) -> Config:
    """Return a TOML tree as a checked Config. Raises ConfigError.

    `source` is used in the message only.
    """
    return _checked(loader.parse(tree, Config, source), source)


def _checked(config: Config, source: str) -> Config:
    """Check the rules that the types cannot express. Raises ConfigError."""
    _check_broker(config.mqtt, source)
    if "stage" in config.commands.allow and not config.commands.bundle_folder:
        raise ConfigError(
            f"{source}: commands.bundle_folder: '': stage is allowed, so say in which folder the "
            "bundles lie that may be staged"
        )
    return config


def _check_broker(mqtt: MqttConfig, source: str) -> None:
    """Raise ConfigError unless mqtt.broker is a valid address."""
    if mqtt.broker == "embedded":
        return
    shown = loader.masked(mqtt.broker)
    fix = 'use "embedded", "mqtt://host:port" or "mqtts://host:port"'
    try:
        url = urlsplit(mqtt.broker)
        fits = url.scheme in ("mqtt", "mqtts") and url.hostname and (url.port is None or url.port)
        odd = url.path or url.query or url.fragment or "@" in url.netloc
        (url.hostname or "").encode("idna")  # a..b must fail here, not when resolved
    except ValueError:
        fits = odd = None
    # urlsplit drops line breaks silently.
    if not fits or odd or any(c.isspace() for c in mqtt.broker):
        raise ConfigError(f"{source}: mqtt.broker: {shown!r} is not a broker; {fix}")
