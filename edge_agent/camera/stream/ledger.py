"""Ledger: assigns strip lines to blocks and finds missing lines.

Pure: blocks and outages in, lines and holes out; no clock, no images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_agent.camera.base import StreamCounters
from edge_agent.camera.stream.reconnect import Outage
from edge_agent.frame import Block, GapReason, LineSpan

_FARTHEST = 65_536
"""Ids. A jump further than this is a restarted count, not a loss."""
_NEAR = 64
"""Ids. Without a timestamp, a block up to this far behind is late; further behind, a restart."""
_ENCODER_WRAP = 1 << 32
_MISFIT_SHARE, _MISFIT_COUNTS = 0.02, 2.0
"""The encoder may deviate from the configured counts per line by the larger of these two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingLines:
    """Lines that cannot be inspected. The frame cutter assigns the frame number."""

    reason: GapReason
    detail: str
    span: LineSpan
    block_count: int


@dataclass(slots=True)
class BlockCounts:
    """Block counts since the run began."""

    taken: int = 0
    """Arrived blocks, unusable ones included, duplicate and late ones excluded."""
    missing: int = 0
    repeated: int = 0
    late: int = 0


class BlockLedger:
    """Ledger of the blocks and lines of a run.

    Rules:

    1. Lines are numbered from 0 over the whole run. Each is in one placed block or in one hole.
    2. Skipped ids are a hole of as many blocks, each as high as the last block.
    3. An id seen before is a duplicate block, or a late one that is already declared missing: it is
       dropped and counted, and its lines are not counted twice.
    4. An id that falls back while the camera's own time advances, or that jumps further than any
       loss, means a restarted camera: a hole of as many lines as the encoder shows, or of unknown
       length.
    5. Blocks without ids are consecutive, except for the losses that the stream's counter reports.
    """

    def __init__(
        self, *, first_block_id: int | None = None, counts_per_line: float | None = None
    ) -> None:
        self._configured = counts_per_line
        self._observed: float | None = None
        self.counts = BlockCounts()
        self._line = 0
        self._height: int | None = None
        self._encoder: int | None = None  # at the last block's first line
        self._encoder_lines = 0
        self._encoder_end: int | None = None
        self._begin(first_block_id)

    def _begin(self, next_id: int | None) -> None:
        """Start a new block id count, after the camera restarted its own."""
        self._next_id = next_id
        self._camera_ns: int | None = None
        self._missing: set[int] = set()  # declared missing, but may still arrive late
        self._lost_blocks = 0  # counted by the stream's counter or by ids
        self._adjacent = False

    def take(
        self, block: Block, counters: StreamCounters
    ) -> tuple[list[MissingLines], Block | None, str]:
        """Number the lines of a block.

        Returns:
            The holes before the block; the block at its position on the strip, or None if it must
            be dropped; a one-line mismatch of its encoder count with the lines before it, or "".
        """
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
                return [], None, ""
            if ahead < 0 or ahead > _FARTHEST:
                detail = f"the camera began to count anew: block {block.block_id} after "
                detail += f"{self._next_id - 1}"
                at = (block.span.captured_utc_ns, block.span.captured_monotonic_ns)
                holes.append(self._unknown(detail, block, at))
                self._begin(None)
                ahead = 0
        if ahead:
            holes.append(self._skipped(ahead, block))
        misfit = self._misfit(block)
        return holes, self._place(block), misfit

    def resume(
        self, outage: Outage, first_block_id: int | None, block: Block | None
    ) -> MissingLines:
        """Return the hole of an outage, before the first block after it or at the run's end."""
        before = self._next_id
        detail = f"{outage.reason}: {outage.detail}"
        if block:
            away_s = (block.span.captured_monotonic_ns - outage.began_monotonic_ns) / 1e9
            detail += f"; away for {away_s:.1f} s"
        if before is not None and before > 0:
            detail += f", after block {before - 1}"
        at = (outage.began_utc_ns, outage.began_monotonic_ns)
        hole = self._unknown(detail, block, at)
        self._begin(first_block_id)
        return hole

    def tail(self, counters: StreamCounters, utc_ns: int, monotonic_ns: int) -> MissingLines | None:
        """Return the hole of the blocks that the stream lost after the last one, or None."""
        lost = (counters.lost_blocks or 0) - self._lost_blocks
        if lost <= 0:
            return None
        lines = None if self._height is None else lost * self._height
        hole = MissingLines(
            reason=GapReason.CAMERA_LOSS,
            detail=f"the stream counts {_blocks(lost)} more that never came",
            span=LineSpan(
                first_line=self._line,
                line_count=lines,
                captured_utc_ns=utc_ns,
                captured_monotonic_ns=monotonic_ns,
                encoder_count=self._encoder_end,
            ),
            block_count=lost,
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
        height = self._height or block.span.line_count
        lines = None if height is None else count * height
        if block.block_id is None or self._next_id is None:
            detail = f"the stream counts {_blocks(count)} that never came"
        else:
            last = block.block_id - 1
            of = f"block {last}" if count == 1 else f"blocks {self._next_id} to {last}"
            detail = f"{of} never came"
            self._missing.update(range(self._next_id, block.block_id))
            if len(self._missing) > _FARTHEST:  # limits memory; late blocks are seconds late only
                self._missing = set(range(self._next_id, block.block_id))
        hole = MissingLines(
            reason=GapReason.CAMERA_LOSS,
            detail=detail,
            span=replace(
                block.span,
                first_line=self._line,
                line_count=lines,
                encoder_count=self._encoder_end,
                encoder_end=block.span.encoder_count,
            ),
            block_count=count,
        )
        self._lost_blocks += count
        self.counts.missing += count
        self._line += lines or 0
        self._adjacent = False
        return hole

    def _unknown(self, detail: str, block: Block | None, at: tuple[int, int]) -> MissingLines:
        """Return a hole of an unknown number of blocks; the encoder may give its lines.

        `at` is the start as UTC and host monotonic time, in ns.
        """
        lines = None
        end = block.span.encoder_count if block else None
        if self._configured and end is not None and self._encoder_end is not None:
            advance = _advance(self._encoder_end, end)
            # A negative advance (encoder reset, or strip reversed) gives no length.
            lines = round(advance / self._configured) if advance >= 0 else None
        hole = MissingLines(
            reason=GapReason.CAMERA_LOSS,
            detail=detail,
            span=LineSpan(
                first_line=self._line,
                line_count=lines,
                captured_utc_ns=at[0],
                captured_monotonic_ns=at[1],
                encoder_count=self._encoder_end,
                encoder_end=end,
            ),
            block_count=1,
        )
        self._line += lines or 0
        return hole

    def _place(self, block: Block) -> Block:
        first, lines = self._line, block.span.line_count or 0
        self._line += lines
        self._height = block.span.line_count or self._height
        self._next_id = None if block.block_id is None else block.block_id + 1
        self._camera_ns = block.camera_ns
        self.counts.taken += 1
        per_line = self._configured or self._observed
        encoder = block.span.encoder_count
        if encoder is None or per_line is None:
            # Without a fixed ratio of lines to encoder counts the block's end is unknown.
            self._encoder_end = None
        else:
            self._encoder_end = encoder + round(lines * per_line)
        self._encoder, self._encoder_lines = encoder, lines
        self._adjacent = True
        span = replace(block.span, first_line=first, encoder_end=self._encoder_end)
        return replace(block, span=span)

    def _misfit(self, block: Block) -> str:
        """Compare the encoder's advance since the previous block with that block's lines.

        Returns the mismatch in one line, or "" if it fits or the blocks are not consecutive.
        Without configured counts per line it stores the observed value.
        """
        encoder = block.span.encoder_count
        if self._encoder is None or encoder is None:
            return ""
        if not self._adjacent or not self._encoder_lines:
            return ""
        advance = _advance(self._encoder, encoder)
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
    """Return the advance of an encoder count that may wrap at 32 bits."""
    advance = after - before
    return advance + _ENCODER_WRAP if advance < -(_ENCODER_WRAP // 2) else advance


def _blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count} blocks"
