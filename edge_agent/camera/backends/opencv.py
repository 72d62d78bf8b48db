"""OpenCV backend: V4L2 device, RTSP stream, GStreamer pipeline or video file.

Skipped frames are not reported, only loss of the stream: OpenCV's `read` waits at most 1.5 s for
a stream's frame; if a V4L2 driver does not respond at all, OpenCV gives up after 10 s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

# FFmpeg reads this once, at first use. Its log is replaced by one-line errors of this module.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from edge_agent.camera.backends.capture import Capture, open_capture
from edge_agent.camera.base import CameraLost, EndOfStream, LossReason, StreamCounters
from edge_agent.config.camera import GstreamerCamera, RtspCamera, V4l2Camera, VideoCamera
from edge_agent.errors import CameraError
from edge_agent.frame import Block, GapReason, LineSpan

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


OpenCvConfig = V4l2Camera | RtspCamera | GstreamerCamera | VideoCamera

_OPEN_MS, _READ_MS = 4000, 1500
_MAX_SECRET_BYTES = 4096


class OpenCvBackend:
    """Camera on cv2.VideoCapture: one frame of the device, stream or file is one block."""

    first_block_id: int | None = None

    def __init__(
        self,
        config: OpenCvConfig,
        open_capture: Callable[[str, int, Sequence[int]], Capture] = open_capture,
    ) -> None:
        self._config, self._open = config, open_capture
        self.live = not isinstance(config, VideoCamera)
        self._taken = 0
        self._announced = 0
        self._capture: Capture | None = None
        self._capture = self._opened()

    def grab(self, timeout_s: float) -> Block | None:  # noqa: ARG002 - the protocol's
        """Return the next frame; OpenCV's own timeout applies instead of `timeout_s`.

        Raises CameraLost if a live source stops, EndOfStream after the last frame of a file.
        """
        if self._capture is None:
            raise CameraLost(LossReason.NO_ANSWER, f"{self._label}: closed")
        there, image = self._capture.read()
        if there and image is not None:
            self._taken += 1
            return self._block(image)
        if self.live:
            raise CameraLost(LossReason.NO_ANSWER, f"{self._label}: gives no more frames")
        return self._file_end()

    def counters(self) -> StreamCounters:
        """Return empty counters: OpenCV does not report lost frames."""
        return StreamCounters()

    def close(self) -> None:
        """Release the source. May be called twice."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    # Opening.

    @property
    def _label(self) -> str:
        """Return the field and its value, without secrets."""
        match self._config:
            case V4l2Camera():
                return f"camera.device: {self._config.device}"
            case RtspCamera():
                return f"camera.url: {_without_secrets(self._config.url)}"
            case GstreamerCamera():
                return "camera.pipeline"
            case VideoCamera():
                return f"camera.path: {self._config.path}"

    def _opened(self) -> Capture:
        match self._config:
            case V4l2Camera():
                return self._device(self._config)
            case RtspCamera():
                return self._stream(self._config)
            case GstreamerCamera():
                return self._pipeline(self._config)
            case VideoCamera():
                return self._file(self._config)

    def _device(self, config: V4l2Camera) -> Capture:
        path = Path(config.device)
        if not path.exists():
            fix = "plug it in, or see `ls -l /dev/v4l/by-id`"
            raise CameraLost(LossReason.NOT_FOUND, f"{self._label}: no such device; {fix}")
        if not os.access(path, os.R_OK | os.W_OK):
            raise CameraError(f"{self._label}: may not be read; add this user to the group video")
        why = "cannot be opened: another program has it, or it is no camera"
        refusal = CameraLost(LossReason.CONTROL_TAKEN, f"{self._label}: {why}")
        capture = self._open_or(refusal, os.path.realpath(path), cv2.CAP_V4L2)
        try:
            _set_up(capture, config)
        except CameraError:
            capture.release()
            raise
        return capture

    def _stream(self, config: RtspCamera) -> Capture:
        try:
            url = urlsplit(config.url)
            fits = url.scheme in ("rtsp", "rtsps") and url.hostname and url.port != 0
        except ValueError:
            fits = None
        if not fits or "@" in url.netloc or any(c.isspace() for c in config.url):
            fix = 'give "rtsp://host[:port]/path", and the password with camera.password_file'
            raise CameraError(f"{self._label}: not the address of a stream; {fix}")
        address = config.url
        if config.username:
            who = f"{quote(config.username, safe='')}:{quote(_secret(config), safe='')}@"
            address = address.replace("://", f"://{who}", 1)
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS]
        timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS]
        why = "no stream there: wrong address or password, or the camera is off"
        refusal = CameraLost(LossReason.NOT_FOUND, f"{self._label}: {why}")
        return self._open_or(refusal, address, cv2.CAP_FFMPEG, timeouts)

    def _pipeline(self, config: GstreamerCamera) -> Capture:
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise CameraError(
                "camera.kind: gstreamer: this OpenCV is built without GStreamer; install one that "
                "has it (Debian's python3-opencv), or use rtsp, v4l2 or genicam"
            )
        if "appsink" not in config.pipeline:
            raise CameraError(f"{self._label}: must end in an appsink; append ' ! appsink'")
        why = "does not start; try it with gst-launch-1.0"
        refusal = CameraLost(LossReason.NOT_FOUND, f"{self._label}: {why}")
        return self._open_or(refusal, config.pipeline, cv2.CAP_GSTREAMER)

    def _file(self, config: VideoCamera) -> Capture:
        if not Path(config.path).is_file():
            raise CameraError(f"{self._label}: no such file; give a video")
        refusal = CameraError(f"{self._label}: not a video that FFmpeg can read")
        capture = self._open_or(refusal, config.path, cv2.CAP_FFMPEG)
        self._announced = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        return capture

    def _open_or(
        self, refusal: CameraError, name: str, api: int, parameters: Sequence[int] = ()
    ) -> Capture:
        """Open a capture; raise `refusal` if it does not open."""
        capture = self._open(name, api, parameters)
        if not capture.isOpened():
            capture.release()
            raise refusal
        return capture

    # Frames.

    def _block(self, image: Any) -> Block:
        grey = image.ndim == 2 or image.shape[2] == 1
        wide = image.dtype == np.uint16
        known = image.dtype in (np.uint8, np.uint16) and (
            grey or (image.shape[2] == 3 and not wide)
        )
        return Block(
            data=image,
            pixel_format=("Mono16" if wide else "Mono8") if grey else "BGR8",
            width_px=int(image.shape[1]),
            span=LineSpan(
                first_line=0,
                line_count=int(image.shape[0]),
                captured_utc_ns=time.time_ns(),
                captured_monotonic_ns=time.monotonic_ns(),
            ),
            block_id=None,
            fault="" if known else f"{image.dtype} pixels of {image.shape[2]} channels",
            fault_reason=GapReason.BAD_FRAME,
        )

    def _file_end(self) -> Block:
        """Return a fault block for missing frames or, with `loop`, the first frame again.

        Raises EndOfStream otherwise.
        """
        taken, self._taken = self._taken, 0
        missing = self._announced - taken
        # Some containers store only the duration, so a small difference is not damage.
        if taken and missing > max(2, self._announced // 50):
            self._announced = 0
            return Block(
                data=None,
                pixel_format="BGR8",
                width_px=0,
                span=LineSpan(
                    first_line=0,
                    line_count=None,
                    captured_utc_ns=time.time_ns(),
                    captured_monotonic_ns=time.monotonic_ns(),
                ),
                block_id=None,
                fault=f"the file ends after {taken} of {taken + missing} frames",
                fault_reason=GapReason.BAD_FRAME,
            )
        if not isinstance(self._config, VideoCamera) or not self._config.loop or not taken:
            raise EndOfStream
        self.close()
        self._capture = self._opened()
        there, image = self._capture.read()
        if not there:
            raise EndOfStream
        self._taken = 1
        return self._block(image)


def _set_up(capture: Capture, config: V4l2Camera) -> None:
    """Set the configured properties; raise CameraError if the device reports other values."""
    if config.fourcc is not None:
        code = cv2.VideoWriter.fourcc(*config.fourcc)
        _set(capture, cv2.CAP_PROP_FOURCC, code, "fourcc", config.fourcc)
    wanted = (
        (cv2.CAP_PROP_FRAME_WIDTH, "width_px", config.width_px),
        (cv2.CAP_PROP_FRAME_HEIGHT, "height_px", config.height_px),
        (cv2.CAP_PROP_FPS, "fps", config.fps),
    )
    for prop, _, value in wanted:
        if value is not None:
            capture.set(prop, value)
    for prop, name, value in wanted:
        if value is not None:
            _check(capture, prop, value, name)


def _set(capture: Capture, prop: int, value: float, name: str, shown: str) -> None:
    capture.set(prop, value)
    if round(capture.get(prop)) != value:
        raise CameraError(
            f"camera.{name}: the device does not take {shown!r}; see `v4l2-ctl --list-formats-ext`"
        )


def _check(capture: Capture, prop: int, value: float, name: str) -> None:
    got = capture.get(prop)
    if abs(got - value) > 0.01 * value:
        raise CameraError(
            f"camera.{name}: the device does not take {value:g}, it gives {got:g}; "
            "see `v4l2-ctl --list-formats-ext`"
        )


def _secret(config: RtspCamera) -> str:
    if not config.password_file:
        return ""
    try:
        with Path(config.password_file).open(encoding="utf-8") as file:
            return file.read(_MAX_SECRET_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CameraError(f"camera.password_file: {config.password_file}: {why}") from None


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    host = rest.rpartition("@")[2] if "@" in rest else rest
    return f"{scheme}{separator}***@{host}" if host != rest else url
