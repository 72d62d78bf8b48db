"""The agent's configuration: one frozen tree.

Relative paths are taken from the folder the command runs in.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from edge_agent import settings
from edge_agent.errors import ConfigError

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
# Bounds above, because TOML knows infinity.
_Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
CommandName = Literal["status", "picture", "set_coil", "start", "stop", "stage"]
_Topic = Annotated[str, msgspec.Meta(pattern=r"^[^+#\x00/][^+#\x00]{0,199}\Z")]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_SizeMm = Annotated[float, msgspec.Meta(gt=0, le=1000)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Provider = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9]+ExecutionProvider|openvino)\Z")]
_Features = dict[str, bool | int | float | str]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Agent(_Part, frozen=True, kw_only=True):
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


class _Camera(_Part, frozen=True, kw_only=True):
    """What every kind of camera has.

    `frame_lines`: "camera" takes frames as they come, a number re-cuts them, "bundle" to the height
    of the bundle's golden frames. `overlap_lines` of a re-cut frame were in the one before too.
    `encoder_counts_per_line`: what the encoder counts while one line is taken. `wait`: a camera
    that is not there at the start is waited for. `implausible_images` declare: a frozen, black or
    white image is a gap; inspect: it is inspected like any other.
    """

    frame_lines: Annotated[int, msgspec.Meta(ge=1, le=16384)] | Literal["camera", "bundle"] = (
        "camera"
    )
    overlap_lines: Annotated[int, msgspec.Meta(ge=0, le=8192)] = 0
    encoder_counts_per_line: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    wait: bool = False
    implausible_images: Literal["declare", "inspect"] = "declare"


class FolderCamera(_Camera, tag_field="kind", tag="folder", frozen=True, kw_only=True):
    """Images of a folder in the order of their names; `mixed_sizes` lets the size change.

    `follow`: go on with files as they appear, in the order they are finished.
    """

    path: str
    loop: bool = False
    follow: bool = False
    mixed_sizes: bool = False
    # Somebody chose these images; a lens cap is not to be found among them by accident.
    implausible_images: Literal["declare", "inspect"] = "inspect"


class VideoCamera(_Camera, tag_field="kind", tag="video", frozen=True, kw_only=True):
    """A video file, frame by frame."""

    path: str
    loop: bool = False
    implausible_images: Literal["declare", "inspect"] = "inspect"


class V4l2Camera(_Camera, tag_field="kind", tag="v4l2", frozen=True, kw_only=True):
    """A device of Video4Linux: /dev/video0, or a name below /dev/v4l/by-id. Without a size the
    device's own is taken."""

    device: str
    width_px: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None
    height_px: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None
    fps: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    fourcc: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9 ]{4}\Z")] | None = None


class RtspCamera(_Camera, tag_field="kind", tag="rtsp", frozen=True, kw_only=True):
    """An RTSP stream over TCP. The password is read from a file, never from the address."""

    url: str
    username: str = ""
    password_file: str = ""


class GstreamerCamera(_Camera, tag_field="kind", tag="gstreamer", frozen=True, kw_only=True):
    """A GStreamer pipeline that ends in an appsink; needs an OpenCV built with GStreamer."""

    pipeline: str


class GenicamCamera(_Camera, tag_field="kind", tag="genicam", frozen=True, kw_only=True):
    """GigE Vision or USB3 Vision without a vendor's SDK.

    `serial`, `user_name`, `mac`, `ip`: together they must fit exactly one camera. `interface`: only
    that one of this host, by name or address. `features`: a table of SFNC names, set in its order;
    or several tables, where a feature is set under two selectors. `chunks` auto: timestamp, encoder
    and line status, where the camera has them. `packet_size` auto: the largest that passes; camera:
    as the camera has it. `heartbeat_ms`: how long the camera keeps control for a silent host.
    """

    transport: Literal["gige", "usb3"] = "gige"
    serial: str = ""
    user_name: str = ""
    mac: str = ""
    ip: str = ""
    interface: str = ""
    features: _Features | tuple[_Features, ...] = {}
    chunks: tuple[str, ...] | Literal["auto"] = "auto"
    packet_size: Annotated[int, msgspec.Meta(ge=576, le=65535)] | Literal["auto", "camera"] = "auto"
    packet_delay_ns: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] | None = None
    heartbeat_ms: Annotated[int, msgspec.Meta(ge=500, le=60_000)] | None = None
    access: Literal["control", "exclusive"] = "control"


class GentlCamera(_Camera, tag_field="kind", tag="gentl", frozen=True, kw_only=True):
    """Any camera or frame grabber with a GenTL producer, the vendor's `.cti` file.

    `serial`, `user_name`, `model`, `device_id` (the producer's own): together exactly one.
    """

    cti: str
    serial: str = ""
    user_name: str = ""
    model: str = ""
    device_id: str = ""
    features: _Features | tuple[_Features, ...] = {}
    buffers: Annotated[int, msgspec.Meta(ge=3, le=256)] = 16


class SimulatedCamera(_Camera, tag_field="kind", tag="simulated", frozen=True, kw_only=True):
    """The seeded strip. `realtime` keeps the strip's own line rate; otherwise as fast as asked.

    `speed` multiplies the strip's speed (about 1.5 m/s) in real time.
    """

    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    width_px: Annotated[int, msgspec.Meta(ge=800, le=16384)] = 1600
    height_px: Annotated[int, msgspec.Meta(ge=1, le=16384)] = 256
    defects_per_m: Annotated[float, msgspec.Meta(ge=0, le=50)] = 3.0
    harmless_per_m: Annotated[float, msgspec.Meta(ge=0, le=50)] = 4.0
    realtime: bool = True
    speed: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0


# A backend for another kind of camera adds its type here, and a case in camera/chooser.py.
Camera = (
    FolderCamera
    | VideoCamera
    | V4l2Camera
    | RtspCamera
    | GstreamerCamera
    | GenicamCamera
    | GentlCamera
    | SimulatedCamera
)


class CameraFile(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration read for its camera only, whatever else is in it or not yet in it."""

    camera: Camera


class Strip(_Part, frozen=True, kw_only=True):
    """Size of a pixel on the steel; without it events carry no millimetres or metres."""

    pixel_width_mm: _SizeMm | None = None
    line_length_mm: _SizeMm | None = None


class Mqtt(_Part, frozen=True, kw_only=True):
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


class Queues(_Part, frozen=True, kw_only=True):
    """Bounds between the threads, in frames and in messages, and of the spool on the disk.

    `history`: so many messages stay in the spool after they were sent, as long as there is room,
    for `edge-agent tail` and `edge-agent spool replay`.
    """

    frames: _Count = 8
    messages: _Count = 1000
    spool_bytes: Annotated[int, msgspec.Meta(ge=131072)] = 256 << 20
    history: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 2000


class Health(_Part, frozen=True, kw_only=True):
    """`status_file`: for `edge-agent status`; empty is status.json in the state folder.

    `metrics_port` 0: no metrics. `metrics_host`: whoever reaches it may read them.
    """

    interval_s: Annotated[float, msgspec.Meta(ge=0.5, le=3600)] = 5.0
    status_file: str = ""
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    metrics_host: str = "127.0.0.1"


class Update(_Part, frozen=True, kw_only=True):
    """How a staged bundle is judged.

    It is tried on `trial_frames` frames of the line, or on those of `trial_s` seconds if they are
    20 at least, and must then prove itself on `prove_frames` as the one that runs. `budget_ms`: for
    gate and segmenter together, in 95 of 100 frames; without it only `max_slowdown` against the
    running bundle counts. Shares are of the frames. `attempts`: so many crashes are too many.
    """

    trial_frames: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200
    trial_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 600.0
    prove_frames: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200
    attempts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    max_slowdown: _Positive = 1.5
    budget_ms: _Positive | None = None
    max_error_share: _Share = 0.0
    max_turned_share: _Share = 1.0
    max_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 2 << 30


class Commands(_Part, frozen=True, kw_only=True):
    """Which commands over MQTT are obeyed: none unless named in `allow`.

    `bundle_folder` holds the bundles that may be staged by name. `per_minute` bounds all commands
    together. A reply goes to the agent's own `reply` topic, or where the command asks for it if
    that is below it or below one of `reply_topics`.
    """

    allow: tuple[CommandName, ...] = ()
    bundle_folder: str = ""
    reply_topics: tuple[_Topic, ...] = ()
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=6000)] = 60


class Evidence(_Part, frozen=True, kw_only=True):
    """Pictures of frames with defects, sent behind their events. At most `per_minute`: events
    beyond that have none. `max_bytes`: a larger picture is halved until it fits."""

    pictures: bool = False
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=6000)] = 60
    jpeg_quality: Annotated[int, msgspec.Meta(ge=10, le=100)] = 85
    max_bytes: Annotated[int, msgspec.Meta(ge=16384, le=16 << 20)] = 512 << 10


class Config(_Part, frozen=True, kw_only=True):
    agent: Agent
    camera: Camera
    mqtt: Mqtt
    update: Update = Update()
    commands: Commands = Commands()
    strip: Strip = Strip()
    evidence: Evidence = Evidence()
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
    return _checked(settings.load(path, Config, overrides), str(path))


def parse(tree: dict[str, Any], source: str) -> Config:
    """A TOML tree as a Config. Raises ConfigError; `source` is for the message."""
    return _checked(settings.parse(tree, Config, source), source)


def _checked(config: Config, source: str) -> Config:
    """What no type can say."""
    _check_broker(config.mqtt, source)
    if "stage" in config.commands.allow and not config.commands.bundle_folder:
        raise ConfigError(
            f"{source}: commands.bundle_folder: '': stage is allowed, so say in which folder the "
            "bundles lie that may be staged"
        )
    return config


def _check_broker(mqtt: Mqtt, source: str) -> None:
    if mqtt.broker == "embedded":
        return
    shown = settings.masked(mqtt.broker)
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
