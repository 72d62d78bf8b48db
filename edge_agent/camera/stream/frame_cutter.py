"""Blocks of any height re-cut to frames of one height.

Pure. Each line is new in exactly one frame, or lies in one gap. A line is copied at most once into
each frame that shows it, and not at all where a frame lies within one block. A run is a stretch of
lines without a hole. Frames of a run begin at its first line; each but the first begins with the
last `overlap_lines` of the one before, so that a defect on the seam is seen whole. The last frame
of a run reaches back into the one before, so that it is as high as the others and what is new is
seen; a run that is shorter than a frame is a gap, since a network that was trained on whole frames
would be shown something else.

Frames that were given out must not be written to: the next one may begin with their lines.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from edge_agent.camera.stream.ledger import MissingLines
from edge_agent.frame import Frame, Gap, GapReason, Image

_MERGE_NS = 1_000_000_000
"""So much of one trouble is one gap: a lens cap must not become a thousand messages a second."""
_EACH_BY_ITSELF = frozenset({GapReason.BAD_FRAME})


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stretch:
    """The lines of one good block."""

    image: Image
    first_line: int
    captured_utc_ns: int
    captured_monotonic_ns: int
    encoder_count: int | None = None
    encoder_end: int | None = None
    source: str = ""

    @property
    def end_line(self) -> int:
        return self.first_line + int(self.image.shape[0])

    def encoder_at(self, line: int) -> int | None:
        if self.encoder_count is None or line == self.first_line:
            return self.encoder_count
        if self.encoder_end is None:
            return None
        share = (line - self.first_line) / (self.end_line - self.first_line)
        return self.encoder_count + round(share * (self.encoder_end - self.encoder_count))


class FrameCutter:
    """`frame_lines` None: each block is a frame."""

    def __init__(self, frame_lines: int | None = None, overlap_lines: int = 0) -> None:
        """ValueError where the overlap is not less than the frame."""
        if frame_lines is not None and overlap_lines >= frame_lines:
            raise ValueError(f"{overlap_lines} is not less than the frame's {frame_lines} lines")
        self._height, self._overlap = frame_lines, overlap_lines
        self._frame_id = 0
        self._hole: MissingLines | None = None
        self._merged = 0
        self._begin_run(0)

    def _begin_run(self, line: int) -> None:
        self._run = line
        self._first = line  # of the frame that is being filled
        self._end = line  # of the lines that came
        self._frame: Image | None = None
        self._before: Image | None = None  # the frame before, in this run
        self._blocks: deque[Stretch] = deque()  # that the two frames came from, without images

    def take(self, item: Stretch | MissingLines) -> list[Frame | Gap]:
        if isinstance(item, MissingLines):
            return [*self._end_run(), *self._add_hole(item)]
        made = self._gap()
        if self._height is None:
            return [*made, self._whole(item)]
        if item.first_line != self._end or not self._fits(item.image):
            made += self._end_run()
            self._begin_run(item.first_line)
        return [*made, *self._cut(item, self._height)]

    def settle(self, monotonic_ns: int) -> list[Frame | Gap]:
        """A gap that was held back to see whether it goes on, if it has been for long."""
        hole = self._hole
        late = hole is not None and monotonic_ns - hole.captured_monotonic_ns >= _MERGE_NS
        return self._gap() if late else []

    def flush(self) -> list[Frame | Gap]:
        """All that is left, at the end."""
        return [*self._end_run(), *self._gap()]

    # Frames.

    def _whole(self, block: Stretch) -> Frame:
        return Frame(
            image=block.image,
            frame_id=self._next_id(),
            first_line=block.first_line,
            captured_utc_ns=block.captured_utc_ns,
            captured_monotonic_ns=block.captured_monotonic_ns,
            encoder_count=block.encoder_count,
            source=block.source,
            encoder_end=block.encoder_end,
        )

    def _fits(self, image: Image) -> bool:
        """Frames hold one width and one kind of pixel."""
        known = self._frame if self._frame is not None else self._before
        return known is None or known.shape[1:] == image.shape[1:]

    def _cut(self, block: Stretch, height: int) -> list[Frame | Gap]:
        made: list[Frame | Gap] = []
        image, total = block.image, int(block.image.shape[0])
        self._blocks.append(replace(block, image=np.empty((total, 0), np.uint8)))
        while self._end < block.end_line:
            at = self._end - block.first_line
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
        """The frame that is being filled, with the lines that it shares with the one before."""
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
            first_line=first,
            captured_utc_ns=self._block_of(first).captured_utc_ns,
            captured_monotonic_ns=self._block_of(end - 1).captured_monotonic_ns,
            encoder_count=self._block_of(first).encoder_at(first),
            source=self._block_of(first).source,
            overlap_lines=repeated,
            encoder_end=self._block_of(end - 1).encoder_at(end),
        )
        self._before, self._frame = image, None
        self._first = end - self._overlap
        while self._blocks[0].end_line <= first:  # the next may reach back to here, not further
            self._blocks.popleft()
        return frame

    def _block_of(self, line: int) -> Stretch:
        return next(b for b in self._blocks if b.first_line <= line < b.end_line)

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
        first, last = self._block_of(self._first), self._block_of(self._end - 1)
        return MissingLines(
            reason=GapReason.FRAGMENT,
            detail=f"{lines} lines on their own; a frame has {self._height}",
            first_line=self._first,
            line_count=lines,
            block_count=1,
            captured_utc_ns=first.captured_utc_ns,
            captured_monotonic_ns=last.captured_monotonic_ns,
            encoder_count=first.encoder_at(self._first),
            encoder_end=last.encoder_at(self._end),
        )

    # Gaps.

    def _add_hole(self, hole: MissingLines) -> list[Frame | Gap]:
        """Held back, since the next may be more of the same."""
        old = self._hole
        if (
            old is not None
            and hole.reason is old.reason
            and hole.reason not in _EACH_BY_ITSELF
            and old.line_count is not None
            and hole.line_count is not None
            and hole.first_line == old.first_line + old.line_count
            and hole.captured_monotonic_ns - old.captured_monotonic_ns < _MERGE_NS
        ):
            self._hole = replace(
                old,
                line_count=old.line_count + hole.line_count,
                block_count=old.block_count + hole.block_count,
                encoder_end=hole.encoder_end,
            )
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
            lines = hole.line_count or 1
            frames = -(-lines // (self._height - self._overlap))
        more = f"; and {self._merged} times more" if self._merged else ""
        gap = Gap(
            reason=hole.reason,
            frame_id=self._frame_id,
            first_line=hole.first_line,
            line_count=hole.line_count,
            captured_utc_ns=hole.captured_utc_ns,
            captured_monotonic_ns=hole.captured_monotonic_ns,
            detail=hole.detail + more,
            frame_count=frames,
            encoder_count=hole.encoder_count,
            encoder_end=hole.encoder_end,
        )
        self._frame_id += frames
        return [gap]

    def _next_id(self) -> int:
        self._frame_id += 1
        return self._frame_id - 1
