"""The `[camera]` table: one type a backend, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge_agent.config.fields import ConfigPart, _Features


class _Camera(ConfigPart, frozen=True, kw_only=True):
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
    features: _Features | tuple[_Features, ...] = msgspec.field(default_factory=dict)
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
    features: _Features | tuple[_Features, ...] = msgspec.field(default_factory=dict)
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
