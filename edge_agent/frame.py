"""The values that flow through the agent: Frame, Gap, Region. All frozen, units in the names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8, shape (lines, pixels) for grey or (lines, pixels, 3) for RGB."""

ClassMap = NDArray[np.uint8]
"""uint8, shape (lines, pixels); 0 is sound steel, k is the k-th class of the bundle."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One block of consecutive strip lines as the camera delivered it.

    `frame_id` counts what the camera made, gaps included; `first_line` is the number of the
    block's first line since acquisition began. `captured_utc_ns` is wall-clock time,
    `captured_monotonic_ns` the host's monotonic clock at the same moment.
    """

    image: Image
    frame_id: int
    first_line: int
    captured_utc_ns: int
    captured_monotonic_ns: int
    encoder_count: int | None = None
    source: str = ""

    @property
    def line_count(self) -> int:
        return int(self.image.shape[0])


class GapReason(str, Enum):
    """Why lines of the strip were not inspected."""

    BAD_FRAME = "bad_frame"
    """The frame could not be read or is not an image the bundle accepts."""
    CAMERA_LOSS = "camera_loss"
    """The camera was gone or skipped frames."""
    OVERLOAD = "overload"
    """Inference was slower than the camera; the frame was dropped unseen."""
    INFERENCE_ERROR = "inference_error"
    """A model failed on the frame."""
    SPOOL_OVERFLOW = "spool_overflow"
    """The frame was inspected, but its event was dropped from a full spool."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of strip that was not inspected, or whose result was lost, and why.

    `line_count` is None where it cannot be known (an unreadable image file).
    """

    reason: GapReason
    frame_id: int
    first_line: int
    line_count: int | None
    captured_utc_ns: int
    captured_monotonic_ns: int
    detail: str


@dataclass(frozen=True, slots=True)
class Region:
    """One connected defect in frame coordinates.

    Box in px, half-open: [x_px, x_px + width_px) across the strip, y_px along it from the
    frame's first line. `rle` is the region's mask as Kaggle RLE over the whole frame
    (column-major, counted from 1). `confidence` is the mean class probability inside.
    """

    class_id: int
    confidence: float
    x_px: int
    y_px: int
    width_px: int
    height_px: int
    area_px: int
    rle: str
