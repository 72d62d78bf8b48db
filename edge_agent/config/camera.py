"""Camera configuration: the `[camera]` table, one type per backend, selected by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge_agent.config.fields import ConfigPart, _Features


class _Camera(ConfigPart, frozen=True, kw_only=True):
    """Keys common to all kinds of camera.

    `frame_lines`: "camera" uses frames as delivered; a number re-cuts them to that many lines,
    "bundle" to the height of the bundle's golden frames. `overlap_lines`: lines of a re-cut frame
    that repeat the end of the previous one. `encoder_counts_per_line`: encoder counts per line.
    `wait`: wait at the start for a camera that is not there yet. `implausible_images`: "declare"
    makes a gap of a frozen, black or white image; "inspect" inspects it like any other.
    """

    frame_lines: Annotated[int, msgspec.Meta(ge=1, le=16384)] | Literal["camera", "bundle"] = (
        "camera"
    )
    overlap_lines: Annotated[int, msgspec.Meta(ge=0, le=8192)] = 0
    encoder_counts_per_line: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    wait: bool = False
    implausible_images: Literal["declare", "inspect"] = "declare"


class FolderCamera(_Camera, tag_field="kind", tag="folder", frozen=True, kw_only=True):
    """Images of a folder in the order of their names.

    `mixed_sizes`: the image size may change. `follow`: continue with new files, in the order in
    which they are complete.
    """

    path: str
    loop: bool = False
    follow: bool = False
    mixed_sizes: bool = False
    # A person chose these images, so a lens cap or a frozen camera is not expected.
    implausible_images: Literal["declare", "inspect"] = "inspect"


class VideoCamera(_Camera, tag_field="kind", tag="video", frozen=True, kw_only=True):
    """Video file, read frame by frame."""

    path: str
    loop: bool = False
    implausible_images: Literal["declare", "inspect"] = "inspect"


class V4l2Camera(_Camera, tag_field="kind", tag="v4l2", frozen=True, kw_only=True):
    """Video4Linux device: /dev/video0, or a name below /dev/v4l/by-id.

    Without a size, the device keeps its own.
    """

    device: str
    width_px: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None
    height_px: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None
    fps: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    fourcc: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9 ]{4}\Z")] | None = None


class RtspCamera(_Camera, tag_field="kind", tag="rtsp", frozen=True, kw_only=True):
    """RTSP stream over TCP; the password is read from a file, never from the URL."""

    url: str
    username: str = ""
    password_file: str = ""


class GstreamerCamera(_Camera, tag_field="kind", tag="gstreamer", frozen=True, kw_only=True):
    """GStreamer pipeline that ends in an appsink; needs OpenCV built with GStreamer."""

    pipeline: str


class GenicamCamera(_Camera, tag_field="kind", tag="genicam", frozen=True, kw_only=True):
    """GigE Vision or USB3 Vision camera, without a vendor SDK.

    `serial`, `user_name`, `mac`, `ip`: together they must match exactly one camera. `interface`:
    search only on this interface of the host, by name or address. `features`: a table of SFNC
    names, set in its order; or several tables, if a feature is set under two selectors. `chunks`:
    "auto" enables timestamp, encoder and line status, as far as the camera has them. `packet_size`:
    "auto" is the largest that passes, "camera" keeps the camera's. `heartbeat_ms`: time after which
    the camera takes control away from a silent host.
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
    """Camera or frame grabber with a GenTL producer, the vendor's `.cti` file.

    `serial`, `user_name`, `model`, `device_id` (the producer's own id): together they must match
    exactly one device.
    """

    cti: str
    serial: str = ""
    user_name: str = ""
    model: str = ""
    device_id: str = ""
    features: _Features | tuple[_Features, ...] = msgspec.field(default_factory=dict)
    buffers: Annotated[int, msgspec.Meta(ge=3, le=256)] = 16


class SimulatedCamera(_Camera, tag_field="kind", tag="simulated", frozen=True, kw_only=True):
    """Simulated steel strip, reproducible by `seed`.

    `realtime` keeps the strip's line rate; otherwise frames come as fast as they are requested.
    `speed` multiplies the strip's speed (about 1.5 m/s) in real time.
    """

    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    width_px: Annotated[int, msgspec.Meta(ge=800, le=16384)] = 1600
    height_px: Annotated[int, msgspec.Meta(ge=1, le=16384)] = 256
    defects_per_m: Annotated[float, msgspec.Meta(ge=0, le=50)] = 3.0
    harmless_per_m: Annotated[float, msgspec.Meta(ge=0, le=50)] = 4.0
    realtime: bool = True
    speed: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0


# A backend for another kind of camera adds its type here, and a case in camera/factory.py.
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
    """Configuration file of which only the camera is read; the rest may be incomplete."""

    camera: Camera
