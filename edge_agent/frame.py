"""The values that flow through the agent. Frozen, units in the names."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSpan:
    """Consecutive lines of the strip: where they lie and when they were captured.

    `first_line` is the number of the first line since acquisition began. `line_count` is None where
    it cannot be known. `captured_utc_ns` is the time of the first line; `captured_monotonic_ns` is
    the host's monotonic clock when the last line arrived. `encoder_count` belongs to the first
    line, `encoder_end` to the line after the last.
    """

    first_line: int
    line_count: int | None
    captured_utc_ns: int
    captured_monotonic_ns: int
    encoder_count: int | None = None
    encoder_end: int | None = None

    @property
    def end_line(self) -> int:
        """The number of the line after the last; of an unknown length, that of the first line."""
        return self.first_line + (self.line_count or 0)

    def encoder_at(self, line: int) -> int | None:
        """Interpolate the encoder's count at a line of the span or at its end line.

        Returns None where the encoder or the length is not known.
        """
        if line == self.first_line:
            return self.encoder_count
        if line == self.end_line:
            return self.encoder_end
        if self.encoder_count is None or self.encoder_end is None or not self.line_count:
            return None
        share = (line - self.first_line) / self.line_count
        return self.encoder_count + round(share * (self.encoder_end - self.encoder_count))

    def part(self, first: int, end: int) -> LineSpan:
        """Return the lines from `first` up to, not including, `end`, with the times of the span."""
        return replace(
            self,
            first_line=first,
            line_count=end - first,
            encoder_count=self.encoder_at(first),
            encoder_end=self.encoder_at(end),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Block:
    """Consecutive lines of any number as a camera's backend delivers them, or what is left of them.

    `data` holds the bytes of the payload in `pixel_format` (a name of the GenICam PFNC), lines one
    after the other without padding, in any dtype and shape; nobody else writes to it any more. It
    is None where nothing came that could be looked at. `fault` says in one line what is wrong with
    the block, and is empty for a complete one; what is in the data of a faulty block does not
    count. `fault_reason` is what its gap is called.

    A backend does not number lines: its span begins at line 0 and has no `encoder_end`, until the
    ledger gives the block its place on the strip.

    `block_id` is the camera's own count, unwrapped, or None where it has none.
    `camera_ns` is the camera's timestamp, of the first line, in ns; `camera_clock` says what it
    counts from. `chunks` are further values that the camera sent with the block, by their SFNC
    names.
    """

    data: NDArray[Any] | None
    pixel_format: str
    width_px: int
    span: LineSpan
    block_id: int | None
    fault: str = ""
    fault_reason: GapReason = GapReason.INCOMPLETE
    camera_ns: int | None = None
    camera_clock: Literal["free", "ptp"] = "free"
    chunks: tuple[tuple[str, int | float], ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Consecutive strip lines as the bundle wants them.

    `frame_id` counts frames, gaps included. The first `overlap_lines` lines were in the frame
    before too. The span's UTC time is that of the block with the first line, by the camera's clock
    if it has one; its monotonic time is that of the block with the last line.
    """

    image: Image
    frame_id: int
    span: LineSpan
    source: str = ""
    overlap_lines: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError if the span does not have as many lines as the image."""
        if self.span.line_count != self.line_count:
            raise ValueError(f"{self.line_count} lines of image, span: {self.span.line_count}")

    @property
    def first_line(self) -> int:
        return self.span.first_line

    @property
    def line_count(self) -> int:
        return int(self.image.shape[0])

    @property
    def new_lines(self) -> int:
        """Those that no frame before showed: what is counted."""
        return self.line_count - self.overlap_lines

    @property
    def new_span(self) -> LineSpan:
        """The lines that no frame before showed."""
        return self.span.part(self.first_line + self.overlap_lines, self.span.end_line)


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of strip that was not inspected, or whose result was lost, and why.

    The span's length is unknown for an unreadable image file, and for a camera that was gone,
    without an encoder. `frame_count` is the number of frames that the gap stands for.
    """

    reason: GapReason
    frame_id: int
    span: LineSpan
    detail: str
    frame_count: int = 1

    @property
    def first_line(self) -> int:
        return self.span.first_line

    @property
    def line_count(self) -> int | None:
        return self.span.line_count


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
