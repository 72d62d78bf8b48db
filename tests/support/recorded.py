"""A recording in the place of a device: no kernel module can be loaded where the tests run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

LINES, PIXELS = 48, 160


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    """BGR noise over a gradient, no two alike."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(60, 180, PIXELS, dtype=np.float32)[None, :, None]
    return [
        np.clip(slope + rng.normal(0, 8, (LINES, PIXELS, 3)), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


def write_video(path: Path, *, frames: int, seed: int = 0, codec: str = "MJPG") -> None:
    code = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 25.0, (PIXELS, LINES))
    assert writer.isOpened()
    for image in images(frames, seed):
        writer.write(image)
    writer.release()


class RecordedDevice:
    """What cv2.VideoCapture does for a V4L2 device, from a file.

    A device takes the nearest size that it has and says so, gives no frame once it is unplugged,
    and has one owner at a time.
    """

    _owned: ClassVar[set[str]] = set()

    def __init__(self, recording: Path, name: str, api: int) -> None:
        assert api == cv2.CAP_V4L2
        self._name = name
        self._capture = None if name in self._owned else cv2.VideoCapture(str(recording))
        self._owned.add(name)
        self._fourcc = float(cv2.VideoWriter.fourcc(*"YUYV"))

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self._capture is not None and self._capture.isOpened()

    def read(self) -> tuple[bool, Any]:
        if self._capture is None or not Path(self._name).exists():
            return False, None
        return self._capture.read()

    def get(self, prop: int) -> float:
        assert self._capture is not None
        return self._fourcc if prop == cv2.CAP_PROP_FOURCC else self._capture.get(prop)

    def set(self, prop: int, value: float) -> bool:
        if prop == cv2.CAP_PROP_FOURCC and value == cv2.VideoWriter.fourcc(*"MJPG"):
            self._fourcc = value
            return True
        return False

    def release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
            self._owned.discard(self._name)
