"""Frame cutter: re-cuts blocks of any height to frames of one height.

Pure. Returned frames must not be modified: the next frame may begin with their lines.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from edge_agent.camera.stream.ledger import MissingLines
from edge_agent.frame import Block, Frame, Gap, GapReason, Image, LineSpan

_MERGE_NS = 1_000_000_000
"""Time in which equal gaps merge: a lens cap must not cause a thousand messages per second."""
_EACH_BY_ITSELF = frozenset({GapReason.BAD_FRAME})


class FrameCutter:
    """Cutter of placed blocks to frames. With `frame_lines` None, each block is a frame.

    Each line is new in exactly one frame, or lies in one gap. A line is copied at most once into
    each frame that contains it, and not at all if a frame lies within one block.

    A run is a sequence of lines without a hole. Its frames begin at its first line. Each but the
    first begins with the last `overlap_lines` lines of the previous frame, so that a defect on the
    boundary is visible as a whole. The last frame of a run extends back into the previous frame, so
    that it has full height and its new lines are inspected. A run shorter than a frame is a gap,
    because a network trained on whole frames cannot judge it.
    """

    def __init__(self, frame_lines: int | None = None, overlap_lines: int = 0) -> None:
        """Raise ValueError if the overlap is not less than the frame."""
        if frame_lines is not None and overlap_lines >= frame_lines:
            raise ValueError(f"{overlap_lines} is not less than the frame's {frame_lines} lines")
        self._height, self._overlap = frame_lines, overlap_lines
        self._frame_id = 0
        self._hole: MissingLines | None = None
        self._merged = 0
        self._begin_run(0)

    def _begin_run(self, line: int) -> None:
        self._run = line
        self._first = line  # first line of the frame in progress
        self._end = line  # line after the last line taken
        self._frame: Image | None = None
        self._before: Image | None = None  # the previous frame of this run
        self._blocks: deque[Block] = deque()  # source blocks of these two frames, without data

    def take(self, block: Block, image: Image) -> list[Frame | Gap]:
        """Cut the lines of a placed block; `image` is its decoded image."""
        made = self._gap()
        if self._height is None:
            return [*made, Frame(image, self._next_id(), block.span, block.source)]
        if block.span.first_line != self._end or not self._fits(image):
            made += self._end_run()
            self._begin_run(block.span.first_line)
        return [*made, *self._cut(block, image, self._height)]

    def skip(self, hole: MissingLines) -> list[Frame | Gap]:
        """End the run at missing lines; return the finished frames and gaps."""
        return [*self._end_run(), *self._add_hole(hole)]

    def settle(self, monotonic_ns: int) -> list[Frame | Gap]:
        """Return the gap that is held back for merging, if it is older than the merge time."""
        hole = self._hole
        late = hole is not None and monotonic_ns - hole.span.captured_monotonic_ns >= _MERGE_NS
        return self._gap() if late else []

    def flush(self) -> list[Frame | Gap]:
        """Return all remaining frames and gaps at the end of the stream."""
        return [*self._end_run(), *self._gap()]

    # Frames.

    def _fits(self, image: Image) -> bool:
        """Return True if the image has the width and channels of the run's frames."""
        known = self._frame if self._frame is not None else self._before
        return known is None or known.shape[1:] == image.shape[1:]

    def _cut(self, block: Block, image: Image, height: int) -> list[Frame | Gap]:
        made: list[Frame | Gap] = []
        total = int(image.shape[0])
        self._blocks.append(replace(block, data=None))
        while self._end < block.span.end_line:
            at = self._end - block.span.first_line
            if self._frame is None and self._first == self._end and total - at >= height:
                self._end += height
                made.append(self._emit(image[at : at + height], repeated=0))
                continue
            frame = self._opened(image, height)
            filled = self._end - self._first
            part = min(height - filled, total - at)
            frame[filled : filled + part] = image[at : at + part]
            self._end += part
            if filled + part == height:
                repeated = self._overlap if self._before is not None else 0
                made.append(self._emit(frame, repeated=repeated))
        return made

    def _opened(self, image: Image, height: int) -> Image:
        """Return the frame in progress; a new one begins with the overlap lines."""
        if self._frame is None:
            self._frame = np.empty((height, *image.shape[1:]), np.uint8)
            if self._before is not None and self._overlap:
                self._frame[: self._overlap] = self._before[height - self._overlap :]
        return self._frame

    def _emit(self, image: Image, *, repeated: int) -> Frame:
        first, end = self._first, self._first + int(image.shape[0])
        frame = Frame(
            image=image,
            frame_id=self._next_id(),
            span=self._span(first, end),
            source=self._block_of(first).source,
            overlap_lines=repeated,
        )
        self._before, self._frame = image, None
        self._first = end - self._overlap
        # The next frame can extend back to this frame's first line, not further.
        while self._blocks[0].span.end_line <= first:
            self._blocks.popleft()
        return frame

    def _block_of(self, line: int) -> Block:
        return next(b for b in self._blocks if b.span.first_line <= line < b.span.end_line)

    def _span(self, first: int, end: int) -> LineSpan:
        """Return the span of lines that may begin in one block and end in another."""
        begin, last = self._block_of(first).span, self._block_of(end - 1).span
        return LineSpan(
            first_line=first,
            line_count=end - first,
            captured_utc_ns=begin.captured_utc_ns,
            captured_monotonic_ns=last.captured_monotonic_ns,
            encoder_count=begin.encoder_at(first),
            encoder_end=last.encoder_at(end),
        )

    def _end_run(self) -> list[Frame | Gap]:
        made: list[Frame | Gap] = []
        if self._height is not None and self._frame is not None:
            filled = self._end - self._first
            new = filled - (self._overlap if self._before is not None else 0)
            if self._before is not None:
                frame, height = self._frame, self._height
                whole = np.concatenate((self._before[new : height - self._overlap], frame[:filled]))
                self._first = self._end - height
                made.append(self._emit(whole, repeated=height - new))
            else:
                made += self._add_hole(self._fragment(new))
        self._begin_run(self._end)
        return made

    def _fragment(self, lines: int) -> MissingLines:
        return MissingLines(
            reason=GapReason.FRAGMENT,
            detail=f"{lines} lines on their own; a frame has {self._height}",
            span=self._span(self._first, self._end),
            block_count=1,
        )

    # Gaps.

    def _add_hole(self, hole: MissingLines) -> list[Frame | Gap]:
        """Hold a gap back, because the next one may continue it; return the gap before it."""
        old = self._hole
        if (
            old is not None
            and hole.reason is old.reason
            and hole.reason not in _EACH_BY_ITSELF
            and old.span.line_count is not None
            and hole.span.line_count is not None
            and hole.span.first_line == old.span.end_line
            and hole.span.captured_monotonic_ns - old.span.captured_monotonic_ns < _MERGE_NS
        ):
            span = replace(
                old.span,
                line_count=old.span.line_count + hole.span.line_count,
                encoder_end=hole.span.encoder_end,
            )
            blocks = old.block_count + hole.block_count
            self._hole = replace(old, span=span, block_count=blocks)
            self._merged += 1
            return []
        made = self._gap()
        self._hole, self._merged = hole, 0
        return made

    def _gap(self) -> list[Frame | Gap]:
        hole, self._hole = self._hole, None
        if hole is None:
            return []
        frames = hole.block_count
        if self._height is not None:
            lines = hole.span.line_count or 1
            frames = -(-lines // (self._height - self._overlap))
        more = f"; and {self._merged} times more" if self._merged else ""
        gap = Gap(
            reason=hole.reason,
            frame_id=self._frame_id,
            span=hole.span,
            detail=hole.detail + more,
            frame_count=frames,
        )
        self._frame_id += frames
        return [gap]

    def _next_id(self) -> int:
        self._frame_id += 1
        return self._frame_id - 1
