"""Images of a folder, in the order of their names, as if a camera had taken them."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from edge_agent.camera.base import EndOfStream
from edge_agent.config import FolderCamera
from edge_agent.errors import CameraError
from edge_agent.frame import Frame, Gap, GapReason, Image

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"})
_MAX_FILE_BYTES = 256 << 20
_TAIL_BYTES = 1024  # some cameras append a few bytes after the end marker


def read_image(path: Path) -> Image:
    """A picture file as uint8 (lines, pixels) or RGB (lines, pixels, 3); ValueError says why not.

    Stricter than OpenCV, which fills the rest of a truncated JPEG or PNG with grey and goes on.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    tail = data[-_TAIL_BYTES:]
    if (data.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail) or (
        data.startswith(b"\x89PNG") and b"IEND" not in tail
    ):
        raise ValueError("truncated: the file ends before the picture does")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise ValueError(f"not a picture OpenCV can read: {error.err}") from None
    if image is None:
        raise ValueError("not a picture (unknown format or empty)")
    if image.dtype != np.uint8:
        raise ValueError(f"{image.dtype} pixels; 8 bits a channel are accepted")
    if image.ndim == 3 and image.shape[2] != 3:
        raise ValueError(f"{image.shape[2]} channels; grey or RGB are accepted")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.asarray(image, dtype=np.uint8)


class Folder:
    """The first readable image sets the size; another size is a gap unless `mixed_sizes`."""

    live = False

    def __init__(self, config: FolderCamera) -> None:
        self._config, self._folder = config, Path(config.path)
        try:
            self._names = sorted(
                p.name for p in self._folder.iterdir() if p.suffix.lower() in SUFFIXES
            )
        except OSError as error:
            raise CameraError(
                f"camera.path: {config.path}: {error.strerror}; give a folder of images"
            ) from None
        if not self._names:
            raise CameraError(f"camera.path: {config.path}: no image files in this folder")
        self._frame_id = 0
        self._line = 0
        self._shape: tuple[int, int] | None = None

    def grab(self, timeout_s: float) -> Frame | Gap:
        if self._frame_id >= len(self._names) and not self._config.loop:
            raise EndOfStream
        name = self._names[self._frame_id % len(self._names)]
        # A name need not be UTF-8, nor one line; what is sent must be both.
        shown = name if name.isprintable() else ascii(name)
        frame_id, first_line = self._frame_id, self._line
        self._frame_id += 1
        try:
            image = read_image(self._folder / name)
            self._check_size(image)
        except ValueError as error:
            # The strip went on all the same: count the lines a whole frame would have had.
            lines = self._shape[0] if self._shape else None
            self._line += lines or 0
            return Gap(
                reason=GapReason.BAD_FRAME,
                frame_id=frame_id,
                first_line=first_line,
                line_count=lines,
                captured_utc_ns=time.time_ns(),
                captured_monotonic_ns=time.monotonic_ns(),
                detail=f"{shown}: {error}",
            )
        self._line += image.shape[0]
        return Frame(
            image=image,
            frame_id=frame_id,
            first_line=first_line,
            captured_utc_ns=time.time_ns(),
            captured_monotonic_ns=time.monotonic_ns(),
            source=shown,
        )

    def _check_size(self, image: Image) -> None:
        shape = (int(image.shape[0]), int(image.shape[1]))
        if self._shape is None or self._config.mixed_sizes:
            self._shape = shape
        elif shape != self._shape:
            raise ValueError(
                f"{shape[1]}x{shape[0]} px, but the run's frames are "
                f"{self._shape[1]}x{self._shape[0]}; set camera.mixed_sizes to accept it"
            )

    def close(self) -> None:
        """No file stays open between frames."""
