"""Values that flow through the agent: frozen, with units in the field names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8, shape (lines, pixels) for grey or (lines, pixels, 3) for RGB."""

ClassMap = NDArray[np.uint8]
"""uint8, shape (lines, pixels); 0 is defect-free steel, k is the bundle's k-th class."""


class GapReason(str, Enum):
    """Reason why strip lines were not inspected or their result was lost."""

    BAD_FRAME = "bad_frame"
    """The frame could not be read or is not an image the bundle accepts."""
    CAMERA_LOSS = "camera_loss"
    """The camera was disconnected, or blocks that it counted did not arrive."""
    INCOMPLETE = "incomplete"
    """The block arrived without all of its packets."""
    FROZEN = "frozen"
    """The block holds the same bytes as the block before."""
    BLACK = "black"
    """The image is black: lamp, lens cap or cable fault, no strip visible."""
    SATURATED = "saturated"
    """The image is white: no detail is visible."""
    FRAGMENT = "fragment"
    """Fewer lines lie between two gaps than a frame has."""
    OVERLOAD = "overload"
    """Inference was slower than the camera; the frame was dropped without inspection."""
    STOPPED = "stopped"
    """A command stopped the inspection; the frame was captured but not inspected."""
    INFERENCE_ERROR = "inference_error"
    """A model failed on the frame."""
    SPOOL_OVERFLOW = "spool_overflow"
    """The frame was inspected, but its event was dropped from a full spool."""
    SPOOL_LOSS = "spool_loss"
    """The spool file was damaged; its unsent events are lost."""
    REFUSED = "refused"
    """The frame was inspected, but the broker refused its event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSpan:
    """Consecutive lines of the strip, with their position and capture time.

    `first_line` counts from the start of acquisition. `line_count` is None if the length is
    unknown. `captured_utc_ns` is the time of the first line; `captured_monotonic_ns` is the host's
    monotonic clock when the last line arrived. `encoder_count` belongs to the first line,
    `encoder_end` to the line after the last.
    """

    first_line: int
    line_count: int | None
    captured_utc_ns: int
    captured_monotonic_ns: int
    encoder_count: int | None = None
    encoder_end: int | None = None

    @property
    def end_line(self) -> int:
        """Return the line number after the last line, or `first_line` if the length is unknown."""
        return self.first_line + (self.line_count or 0)

    def encoder_at(self, line: int) -> int | None:
        """Interpolate the encoder count at a line of the span or at its end line.

        Returns None if the encoder count or the length is unknown.
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
        """Return the lines `first` up to, but not including, `end`, with times of this span."""
        return replace(
            self,
            first_line=first,
            line_count=end - first,
            encoder_count=self.encoder_at(first),
            encoder_end=self.encoder_at(end),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Block:
    """Consecutive lines, in any number, as a camera backend delivers them.

    `data` holds the payload bytes in `pixel_format` (a GenICam PFNC name), line after line without
    padding, in any dtype and shape; the backend no longer writes to it. It is None if no usable
    data arrived. `fault` describes the block's fault in one line and is empty for a complete
    block; the data of a faulty block is ignored. `fault_reason` becomes the reason of its gap.

    A backend does not number lines: its span begins at line 0 without an `encoder_end`, until the
    ledger assigns the block its position on the strip.

    `block_id` is the camera's own count, unwrapped, or None if the camera has no count.
    `camera_ns` is the camera's timestamp of the first line, in ns; `camera_clock` names the epoch
    of that clock. `chunks` are further values that the camera sent with the block, by SFNC name.
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
    """Consecutive strip lines in the format that the bundle requires.

    `frame_id` counts frames, gaps included. The first `overlap_lines` lines also belong to the
    previous frame. The span's UTC time is that of the block with the first line, by the camera's
    clock if it has one; its monotonic time is that of the block with the last line.
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
        """Return the number of the first line since the start of acquisition."""
        return self.span.first_line

    @property
    def line_count(self) -> int:
        """Return the number of lines of the image, overlap included."""
        return int(self.image.shape[0])

    @property
    def new_lines(self) -> int:
        """Return the number of lines that no earlier frame contains; counters use these."""
        return self.line_count - self.overlap_lines

    @property
    def new_span(self) -> LineSpan:
        """Return the span of the lines that no earlier frame contains."""
        return self.span.part(self.first_line + self.overlap_lines, self.span.end_line)


@dataclass(frozen=True, slots=True)
class Gap:
    """Section of strip that was not inspected, or whose result was lost, with the reason.

    The span's length is unknown for an unreadable image file, and for a camera outage without an
    encoder. `frame_count` is the number of frames that the gap replaces.
    """

    reason: GapReason
    frame_id: int
    span: LineSpan
    detail: str
    frame_count: int = 1

    @property
    def first_line(self) -> int:
        """Return the number of the first line since the start of acquisition."""
        return self.span.first_line

    @property
    def line_count(self) -> int | None:
        """Return the number of lines, or None if it is unknown."""
        return self.span.line_count


@dataclass(frozen=True, slots=True)
class Region:
    """Connected defect in frame coordinates.

    The box is in px, half-open: [x_px, x_px + width_px) across the strip, y_px along it from the
    frame's first line. `rle` is the region's mask as Kaggle RLE over the whole frame
    (column-major, counted from 1). `confidence` is the mean class probability inside the region.
    """

    class_id: int
    confidence: float
    x_px: int
    y_px: int
    width_px: int
    height_px: int
    area_px: int
    rle: str
