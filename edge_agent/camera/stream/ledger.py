"""Which lines of the strip a block holds, and which never came.

Pure: blocks and outages in, lines and holes out, no clock and no image. The rules:

1. Lines are numbered from 0 over the whole run. Each is in one placed block or in one hole.
2. Ids that are left out are a hole of as many blocks as high as the last one.
3. An id that was there before is the same block again, or one that is late and already declared: it
   is dropped and counted, its lines are not counted twice.
4. An id that falls back while the camera's own time goes on, or jumps further than any loss, means
   that the camera began anew: a hole of as many lines as the encoder says, or of unknown length.
5. Blocks without ids are taken as consecutive, but for what the stream's counter says is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.camera.base import StreamCounters
from edge_agent.camera.stream.reconnect import Outage
from edge_agent.frame import Block, GapReason

_FARTHEST = 65_536
"""Ids. A jump further than this is another count, not a loss."""
_NEAR = 64
"""Ids. Without a timestamp a block this far behind is late, one further behind a new count."""
_ENCODER_WRAP = 1 << 32
_MISFIT_SHARE, _MISFIT_COUNTS = 0.02, 2.0
"""The encoder may differ from its configured counts per line by the larger of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingLines:
    """Lines that nobody can look at. Its frame number is given when frames are cut."""

    reason: GapReason
    detail: str
    first_line: int
    line_count: int | None
    block_count: int
    captured_utc_ns: int
    captured_monotonic_ns: int
    encoder_count: int | None = None
    encoder_end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a block's lines lie. `first_line` None: a block to be dropped.

    `misfit`: in one line, how its encoder count does not fit the lines before it.
    """

    first_line: int | None
    encoder_end: int | None = None
    misfit: str = ""


@dataclass(slots=True)
class BlockCounts:
    """Since the run began."""

    taken: int = 0
    """Blocks that came, the useless ones included, repeated and late ones not."""
    missing: int = 0
    repeated: int = 0
    late: int = 0


class BlockLedger:
    def __init__(
        self, *, first_block_id: int | None = None, counts_per_line: float | None = None
    ) -> None:
        self._configured = counts_per_line
        self._observed: float | None = None
        self.counts = BlockCounts()
        self._line = 0
        self._height: int | None = None
        self._encoder: int | None = None  # of the last block's first line
        self._encoder_lines = 0
        self._encoder_end: int | None = None
        self._begin(first_block_id)

    def _begin(self, next_id: int | None) -> None:
        """A new count of the camera's."""
        self._next_id = next_id
        self._camera_ns: int | None = None
        self._missing: set[int] = set()  # ids declared, that may still come late
        self._lost_blocks = 0  # by the stream's counter, or by ids
        self._adjacent = False

    def take(self, block: Block, counters: StreamCounters) -> tuple[list[MissingLines], Placed]:
        """The holes before a block, and its place."""
        holes: list[MissingLines] = []
        ahead = 0
        if block.block_id is None:
            ahead = max(0, (counters.lost_blocks or 0) - self._lost_blocks)
        elif self._next_id is not None:
            ahead = block.block_id - self._next_id
            if ahead < 0 and not self._fell_back(block, ahead):
                late = block.block_id in self._missing
                self._missing.discard(block.block_id)
                self.counts.late += late
                self._lost_blocks -= late
                self.counts.repeated += not late
                return [], Placed(first_line=None)
            if ahead < 0 or ahead > _FARTHEST:
                detail = f"the camera began to count anew: block {block.block_id} after "
                detail += f"{self._next_id - 1}"
                at = (block.captured_utc_ns, block.captured_monotonic_ns)
                holes.append(self._unknown(detail, block, at))
                self._begin(None)
                ahead = 0
        if ahead:
            holes.append(self._skipped(ahead, block))
        return holes, self._place(block)

    def resume(
        self, outage: Outage, first_block_id: int | None, block: Block | None
    ) -> MissingLines:
        """The hole of an outage that is over, before the first block after it, or at the end."""
        before = self._next_id
        detail = f"{outage.reason}: {outage.detail}"
        if block:
            away_s = (block.captured_monotonic_ns - outage.began_monotonic_ns) / 1e9
            detail += f"; away for {away_s:.1f} s"
        if before is not None and before > 0:
            detail += f", after block {before - 1}"
        at = (outage.began_utc_ns, outage.began_monotonic_ns)
        hole = self._unknown(detail, block, at)
        self._begin(first_block_id)
        return hole

    def tail(self, counters: StreamCounters, utc_ns: int, monotonic_ns: int) -> MissingLines | None:
        """What the stream lost after the last block that came."""
        lost = (counters.lost_blocks or 0) - self._lost_blocks
        if lost <= 0:
            return None
        lines = None if self._height is None else lost * self._height
        hole = MissingLines(
            reason=GapReason.CAMERA_LOSS,
            detail=f"the stream counts {_blocks(lost)} more that never came",
            first_line=self._line,
            line_count=lines,
            block_count=lost,
            captured_utc_ns=utc_ns,
            captured_monotonic_ns=monotonic_ns,
            encoder_count=self._encoder_end,
        )
        self._lost_blocks += lost
        self.counts.missing += lost
        self._line += lines or 0
        return hole

    def _fell_back(self, block: Block, ahead: int) -> bool:
        if block.camera_ns is not None and self._camera_ns is not None:
            return block.camera_ns > self._camera_ns
        return ahead < -_NEAR

    def _skipped(self, count: int, block: Block) -> MissingLines:
        height = self._height or block.line_count
        lines = None if height is None else count * height
        if block.block_id is None or self._next_id is None:
            detail = f"the stream counts {_blocks(count)} that never came"
        else:
            last = block.block_id - 1
            of = f"block {last}" if count == 1 else f"blocks {self._next_id} to {last}"
            detail = f"{of} never came"
            self._missing.update(range(self._next_id, block.block_id))
            if len(self._missing) > _FARTHEST:  # a late block is at most some seconds late
                self._missing = set(range(self._next_id, block.block_id))
        hole = MissingLines(
            reason=GapReason.CAMERA_LOSS,
            detail=detail,
            first_line=self._line,
            line_count=lines,
            block_count=count,
            captured_utc_ns=block.captured_utc_ns,
            captured_monotonic_ns=block.captured_monotonic_ns,
            encoder_count=self._encoder_end,
            encoder_end=block.encoder_count,
        )
        self._lost_blocks += count
        self.counts.missing += count
        self._line += lines or 0
        self._adjacent = False
        return hole

    def _unknown(self, detail: str, block: Block | None, at: tuple[int, int]) -> MissingLines:
        """A hole whose blocks nobody counted; the encoder may know its lines. `at`: UTC, host."""
        lines = None
        end = block.encoder_count if block else None
        if self._configured and end is not None and self._encoder_end is not None:
            advance = _advance(self._encoder_end, end)
            # One that was reset, or that the strip turned back, says nothing.
            lines = round(advance / self._configured) if advance >= 0 else None
        hole = MissingLines(
            reason=GapReason.CAMERA_LOSS,
            detail=detail,
            first_line=self._line,
            line_count=lines,
            block_count=1,
            captured_utc_ns=at[0],
            captured_monotonic_ns=at[1],
            encoder_count=self._encoder_end,
            encoder_end=end,
        )
        self._line += lines or 0
        return hole

    def _place(self, block: Block) -> Placed:
        first, lines = self._line, block.line_count or 0
        misfit = self._misfit(block)
        self._line += lines
        self._height = block.line_count or self._height
        self._next_id = None if block.block_id is None else block.block_id + 1
        self._camera_ns = block.camera_ns
        self.counts.taken += 1
        per_line = self._configured or self._observed
        if block.encoder_count is None or per_line is None:
            # Where lines are not tied to the encoder, their end is not known.
            self._encoder_end = None
        else:
            self._encoder_end = block.encoder_count + round(lines * per_line)
        self._encoder, self._encoder_lines = block.encoder_count, lines
        self._adjacent = True
        return Placed(first_line=first, encoder_end=self._encoder_end, misfit=misfit)

    def _misfit(self, block: Block) -> str:
        """From the block before, if this one is the next: they tell how far a line is."""
        if self._encoder is None or block.encoder_count is None:
            return ""
        if not self._adjacent or not self._encoder_lines:
            return ""
        advance = _advance(self._encoder, block.encoder_count)
        if self._configured is None:
            self._observed = advance / self._encoder_lines
            return ""
        expected = self._encoder_lines * self._configured
        if abs(advance - expected) <= max(_MISFIT_COUNTS, _MISFIT_SHARE * expected):
            return ""
        return (
            f"the encoder counted {advance} over {self._encoder_lines} lines, "
            f"{expected:.0f} are expected by camera.encoder_counts_per_line"
        )


def _advance(before: int, after: int) -> int:
    """Of an encoder count that may have wrapped round at 32 bits."""
    advance = after - before
    return advance + _ENCODER_WRAP if advance < -(_ENCODER_WRAP // 2) else advance


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"
