"""The values that flow through the agent: Block, Frame, Gap, Region. Frozen, units in the names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8, shape (lines, pixels) for grey or (lines, pixels, 3) for RGB."""

ClassMap = NDArray[np.uint8]
"""uint8, shape (lines, pixels); 0 is defect-free steel, k is the k-th class of the bundle."""


class GapReason(str, Enum):
    """Why lines of the strip were not inspected."""

    BAD_FRAME = "bad_frame"
    """The frame could not be read or is not an image the bundle accepts."""
    CAMERA_LOSS = "camera_loss"
    """The camera was gone, or blocks that it counted never came."""
    INCOMPLETE = "incomplete"
    """A block came without all of its packets."""
    FROZEN = "frozen"
    """The same bytes as the block before."""
    BLACK = "black"
    """The image is black: a lamp, a lens cap or a cable, and no strip."""
    SATURATED = "saturated"
    """The image is white: nothing can be seen on it."""
    FRAGMENT = "fragment"
    """Fewer lines between two gaps than a frame has."""
    OVERLOAD = "overload"
    """Inference was slower than the camera; the frame was dropped unseen."""
    STOPPED = "stopped"
    """A command stopped the inspection; the frame was taken and not judged."""
    INFERENCE_ERROR = "inference_error"
    """A model failed on the frame."""
    SPOOL_OVERFLOW = "spool_overflow"
    """The frame was inspected, but its event was dropped from a full spool."""
    SPOOL_LOSS = "spool_loss"
    """The spool's file was damaged: what was in it and unsent will not come."""
    REFUSED = "refused"
    """The frame was inspected, but the broker does not take its event."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Block:
    """Consecutive lines of any number as a camera's backend delivers them, or what is left of them.

    `data` holds the bytes of the payload in `pixel_format` (a name of the GenICam PFNC), lines one
    after the other without padding, in any dtype and shape; nobody else writes to it any more. It
    is None where nothing came that could be looked at. `fault` says in one line what is wrong with
    the block, and is empty for a complete one; what is in the data of a faulty block does not
    count. `fault_reason` is what its gap is called.

    `block_id` is the camera's own count, unwrapped (`camera.blockid`), or None where it has none.
    `line_count` is None where it is not known. `camera_ns` is the camera's timestamp, of the first
    line, in ns; `camera_clock` says what it counts from. `encoder_count` belongs to the first line.
    `chunks` are further values that the camera sent with the block, by their SFNC names.
    """

    data: NDArray[Any] | None
    pixel_format: str
    width_px: int
    line_count: int | None
    block_id: int | None
    captured_utc_ns: int
    captured_monotonic_ns: int
    fault: str = ""
    fault_reason: GapReason = GapReason.INCOMPLETE
    camera_ns: int | None = None
    camera_clock: Literal["free", "ptp"] = "free"
    encoder_count: int | None = None
    chunks: tuple[tuple[str, int | float], ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Consecutive strip lines as the bundle wants them.

    `frame_id` counts frames, gaps included; `first_line` is the number of the first line since
    acquisition began. The first `overlap_lines` lines were in the frame before too.
    `captured_utc_ns` is when the block with the first line was taken, in UTC, by the camera's clock
    if it has one; `captured_monotonic_ns` is the host's monotonic clock when the block with the
    last line arrived. `encoder_count` belongs to the first line, `encoder_end` to the one after the
    last.
    """

    image: Image
    frame_id: int
    first_line: int
    captured_utc_ns: int
    captured_monotonic_ns: int
    encoder_count: int | None = None
    source: str = ""
    overlap_lines: int = 0
    encoder_end: int | None = None

    @property
    def line_count(self) -> int:
        return int(self.image.shape[0])

    def encoder_at(self, line: int) -> int | None:
        """Of a line of the strip that the frame shows; evenly between its two ends."""
        if line == self.first_line or self.encoder_count is None or self.encoder_end is None:
            return self.encoder_count if line == self.first_line else None
        share = (line - self.first_line) / self.line_count
        return self.encoder_count + round(share * (self.encoder_end - self.encoder_count))

    @property
    def new_lines(self) -> int:
        """Those that no frame before showed: what is counted."""
        return self.line_count - self.overlap_lines


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of strip that was not inspected, or whose result was lost, and why.

    `line_count` is None where it cannot be known (an unreadable image file; a camera that was
    gone, without an encoder). `frame_count`: so many frames it stands for. `encoder_count` belongs
    to the first line, `encoder_end` to the line after the last.
    """

    reason: GapReason
    frame_id: int
    first_line: int
    line_count: int | None
    captured_utc_ns: int
    captured_monotonic_ns: int
    detail: str
    frame_count: int = 1
    encoder_count: int | None = None
    encoder_end: int | None = None


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
