"""One TOML file, plus `--set key=value`, to one frozen tree. Unknown keys are errors.

Messages name the key, the value and the fix. Relative paths are taken from the folder the
command runs in.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from edge_agent.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_CONFIG_BYTES = 1 << 20
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Agent(_Part, frozen=True, kw_only=True):
    """`precision`: auto, float32, int8 or a label such as onnx-int8. `threads` 0: all cores."""

    bundle: str
    name: _Name = "agent"
    site: _Name = "site"
    line: _Name = "line"
    coil: str = ""
    state_dir: str = ""
    precision: str = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0


class FolderCamera(_Part, tag_field="kind", tag="folder", frozen=True, kw_only=True):
    """Images of a folder in the order of their names; `mixed_sizes` lets the size change."""

    path: str
    loop: bool = False
    mixed_sizes: bool = False


class SimulatedCamera(_Part, tag_field="kind", tag="simulated", frozen=True, kw_only=True):
    """The seeded strip. `realtime` keeps the strip's own line rate; otherwise as fast as asked.

    `speed` multiplies the strip's speed (about 1.5 m/s) in real time.
    """

    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    width_px: Annotated[int, msgspec.Meta(ge=800, le=16384)] = 1600
    height_px: Annotated[int, msgspec.Meta(ge=1, le=16384)] = 256
    defects_per_m: Annotated[float, msgspec.Meta(ge=0, le=50)] = 3.0
    harmless_per_m: Annotated[float, msgspec.Meta(ge=0, le=50)] = 4.0
    realtime: bool = True
    speed: _Positive = 1.0


Camera = FolderCamera | SimulatedCamera


class Strip(_Part, frozen=True, kw_only=True):
    """Size of a pixel on the steel; without it events carry no millimetres or metres."""

    pixel_width_mm: _Positive | None = None
    line_length_mm: _Positive | None = None


class Mqtt(_Part, frozen=True, kw_only=True):
    """`broker`: "embedded", "mqtt://host[:port]" or "mqtts://host[:port]" (TLS, verified).

    `port` is for the embedded broker, which listens on loopback only. `protocol` auto tries
    MQTT 5 first and falls back; a broker that leaves MQTT 5 unanswered costs 3 s a connection.
    """

    broker: str
    root: _Name = "linegate"
    protocol: Literal["auto", "3.1.1"] = "auto"
    port: _Port = 1883
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30
    window: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20


class Queues(_Part, frozen=True, kw_only=True):
    """Bounds between the threads, in frames and in messages, and of the spool on the disk."""

    frames: _Count = 8
    messages: _Count = 1000
    spool_bytes: Annotated[int, msgspec.Meta(ge=65536)] = 256 << 20


class Health(_Part, frozen=True, kw_only=True):
    interval_s: Annotated[float, msgspec.Meta(ge=0.5, le=3600)] = 5.0


class Config(_Part, frozen=True, kw_only=True):
    agent: Agent
    camera: Camera
    mqtt: Mqtt
    strip: Strip = Strip()
    queues: Queues = Queues()
    health: Health = Health()

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
    def threads(self) -> int:
        return self.agent.threads or len(os.sched_getaffinity(0))


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read and check the file; `overrides` are "section.key=value". Raises ConfigError."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: larger than {_MAX_CONFIG_BYTES} bytes; not a config file")
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config: {path}: {error.strerror}; give an existing file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    for override in overrides:
        _set(tree, override)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], source: str) -> Config:
    """A TOML tree as a Config. Raises ConfigError; `source` is for the message."""
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        # A quoted key may hold a line break, and msgspec repeats it as it is.
        explained = " ".join(_explain(str(error), tree).split())
        raise ConfigError(f"{source}: {explained}") from None
    _check_broker(config.mqtt, source)
    return config


def _check_broker(mqtt: Mqtt, source: str) -> None:
    if mqtt.broker == "embedded":
        return
    shown = re.sub(r"//.*@", "//***@", mqtt.broker)  # a password is not repeated
    fix = 'use "embedded", "mqtt://host:port" or "mqtts://host:port"'
    try:
        url = urlsplit(mqtt.broker)
        fits = url.scheme in ("mqtt", "mqtts") and url.hostname and (url.port is None or url.port)
        odd = url.path or url.query or url.fragment or "@" in url.netloc
    except ValueError:
        fits = odd = None
    # urlsplit drops line breaks without a word.
    if not fits or odd or any(c.isspace() for c in mqtt.broker):
        raise ConfigError(f"{source}: mqtt.broker: {shown!r} is not a broker; {fix}")


def _set(tree: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not sign or not last or not sections:
        raise ConfigError(f"--set: {override!r} is not section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text.strip()  # a bare word or path needs no quotes on the command line
    at = tree
    for section in sections:
        at = at.setdefault(section, {})
        if not isinstance(at, dict):
            raise ConfigError(f"--set: {override!r}: {section} is not a section")
    at[last] = value


def _explain(message: str, tree: dict[str, Any]) -> str:
    """msgspec's "… - at `$.camera.kind`" as "camera.kind: …, got 'x'" with the known keys."""
    text, _, where = message.partition(" - at `$")
    path = where.rstrip("`").lstrip(".")
    unknown = re.match(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    if unknown:
        known = _known_keys(path, tree)
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"{_join(path, unknown[1])}: unknown key; {hint}"
    missing = re.match(r"Object missing required field `(.*)`", text)
    if missing:
        return f"{_join(path, missing[1])}: missing; add it"
    value: Any = tree
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return f"{path}: {value!r} does not fit: {text[:1].lower()}{text[1:]}"


def _known_keys(path: str, tree: dict[str, Any]) -> list[str]:
    camera = tree.get("camera")
    kind = camera.get("kind") if isinstance(camera, dict) else None
    sections: dict[str, list[type[_Part]]] = {
        "": [Config],
        "agent": [Agent],
        "camera": [c for c in (FolderCamera, SimulatedCamera) if c.__struct_config__.tag == kind],
        "mqtt": [Mqtt],
        "strip": [Strip],
        "queues": [Queues],
        "health": [Health],
    }
    return [f for part in sections.get(path, []) for f in part.__struct_fields__]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
