"""A backend's blocks as frames of the bundle's height, with every line accounted for.

Joins the pieces: `returning` keeps the camera, `ledger` numbers the lines, `pixels` decodes them,
`plausible` looks at them, `clock` dates them, `cutter` cuts them, `condition` sums up.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

from edge_agent.camera.base import Backend, CameraCounts, CameraStatus, EndOfStream
from edge_agent.camera.stream.clock import ClockMap
from edge_agent.camera.stream.frame_cutter import FrameCutter, Stretch
from edge_agent.camera.stream.image_checks import ImageChecks
from edge_agent.camera.stream.ledger import BlockLedger, MissingLines
from edge_agent.camera.stream.pixel_formats import decode
from edge_agent.camera.stream.reconnect import Outage, ReconnectingBackend
from edge_agent.camera.stream.status import LINE_RATE, StreamStatus
from edge_agent.frame import Block, Frame, Gap, GapReason, Image


class LineCamera:
    """See base.Camera."""

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        *,
        wait: bool = False,
        colour: bool = True,
        frame_lines: int | None = None,
        overlap_lines: int = 0,
        encoder_counts_per_line: float | None = None,
        check_images: bool = True,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises CameraError. `colour`: a colour camera's frames are RGB, else grey. `now_s` and
        `sleep` are for the pauses between tries to open a lost camera."""
        self._cutter = FrameCutter(frame_lines, overlap_lines)
        self._colour, self._checks = colour, check_images
        self._source = ReconnectingBackend(open_backend, wait=wait, now_s=now_s, sleep=sleep)
        self._ledger = BlockLedger(
            first_block_id=self._source.first_block_id, counts_per_line=encoder_counts_per_line
        )
        self._clock, self._plausibility = ClockMap(), ImageChecks()
        self._condition = StreamStatus(time.time_ns())
        self._useless: Counter[str] = Counter()
        self._ready: deque[Frame | Gap] = deque()
        self._outage: Outage | None = None
        self._lost_blocks = 0  # that were seen to be lost
        self._ended = False
        self._look_at_source()

    @property
    def live(self) -> bool:
        return self._source.live

    @property
    def status(self) -> CameraStatus:
        return self._condition.status

    @property
    def counts(self) -> CameraCounts:
        ledger, stream = self._ledger.counts, self._source.stream
        return CameraCounts(
            losses=self._source.losses,
            blocks_taken=ledger.taken,
            blocks_missing=ledger.missing,
            blocks_duplicate=ledger.repeated,
            blocks_late=ledger.late,
            blocks_rejected=dict(self._useless),
            packets_lost=stream.lost_packets,
            packets_resent=stream.resent_packets,
        )

    def grab(self, timeout_s: float) -> Frame | Gap | None:
        end_s = time.monotonic() + timeout_s
        while not self._ready:
            if self._ended:
                raise EndOfStream
            left_s = end_s - time.monotonic()
            if left_s < 0 and timeout_s > 0:
                return None
            if not self._take(max(0.0, left_s)) and not self._ready:
                return None
        return self._ready.popleft()

    def drain(self) -> list[Frame | Gap]:
        self._end()
        rest = list(self._ready)
        self._ready.clear()
        return rest

    def close(self) -> None:
        self._source.close()

    def _take(self, timeout_s: float) -> bool:
        """One block or outage from the source; False when none came."""
        try:
            taken = self._source.grab(timeout_s)
        except EndOfStream:
            self._end()
            return True
        self._look_at_source()
        if taken is None:
            self._silence()
            return False
        if isinstance(taken, Outage):
            # Its length is known when the first block after it is here.
            self._outage = self._outage or taken
            return True
        self._block(taken)
        return True

    def _silence(self) -> None:
        """No block came, or not one was left whole of those that the stream saw begin."""
        self._ready += self._cutter.settle(time.monotonic_ns())
        lost = (self._source.counters.lost_blocks or 0) - self._lost_blocks
        if lost > 0:
            self._lost_blocks += lost
            detail = f"the stream counts {lost} more blocks that never came"
            reason = GapReason.CAMERA_LOSS.value
            self._condition.blocks(reason, detail, lost, time.monotonic_ns(), time.time_ns())

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        outage = self._outage or self._source.outage
        if outage:
            self._hole(self._ledger.resume(outage, None, None))
        else:
            tail = self._ledger.tail(self._source.counters, time.time_ns(), time.monotonic_ns())
            if tail:
                self._hole(tail)
        self._ready += self._cutter.flush()

    def _look_at_source(self) -> None:
        outage = self._source.outage
        if outage and self._source.lost:
            self._condition.lost(outage.reason, outage.detail, outage.began_utc_ns)
        elif self._condition.status.state == "lost":
            self._condition.back(time.time_ns())

    def _block(self, block: Block) -> None:
        if self._outage:
            outage, self._outage = self._outage, None
            self._clock = ClockMap()
            self._plausibility.forget()
            self._hole(self._ledger.resume(outage, self._source.first_block_id, block))
        at = self._clock.utc_ns(block.camera_ns, block.camera_clock, block.captured_utc_ns)
        block = replace(block, captured_utc_ns=at)
        holes, placed = self._ledger.take(block, self._source.counters)
        self._lost_blocks = self._source.counters.lost_blocks or 0
        for hole in holes:
            self._hole(hole)
            self._judge(hole.reason.value, hole.detail, hole.block_count, block)
        if placed.first_line is None:
            return
        image, fault = self._image(block)
        if fault or image is None:
            reason, detail = fault or (GapReason.BAD_FRAME, "no data")
            self._useless[reason.value] += 1
            self._judge(reason.value, detail, 1, block)
            self._hole(
                MissingLines(
                    reason=reason,
                    detail=detail,
                    first_line=placed.first_line,
                    line_count=block.line_count,
                    block_count=1,
                    captured_utc_ns=block.captured_utc_ns,
                    captured_monotonic_ns=block.captured_monotonic_ns,
                    encoder_count=block.encoder_count,
                    encoder_end=placed.encoder_end,
                )
            )
            return
        if placed.misfit:
            self._useless[LINE_RATE] += 1
        self._judge(LINE_RATE if placed.misfit else "", placed.misfit, 1, block)
        self._ready += self._cutter.take(
            Stretch(
                image=image,
                first_line=placed.first_line,
                captured_utc_ns=block.captured_utc_ns,
                captured_monotonic_ns=block.captured_monotonic_ns,
                encoder_count=block.encoder_count,
                encoder_end=placed.encoder_end,
                source=block.source,
            )
        )

    def _image(self, block: Block) -> tuple[Image | None, tuple[GapReason, str] | None]:
        if block.fault:
            return None, (block.fault_reason, block.fault)
        if block.data is None or block.line_count is None:
            return None, None
        try:
            image = decode(
                block.data,
                block.pixel_format,
                block.line_count,
                block.width_px,
                colour=self._colour,
            )
        except ValueError as error:
            return None, (GapReason.BAD_FRAME, str(error))
        return image, self._plausibility.fault(image) if self._checks else None

    def _hole(self, hole: MissingLines) -> None:
        self._ready += self._cutter.take(hole)

    def _judge(self, reason: str, detail: str, count: int, block: Block) -> None:
        self._condition.blocks(
            reason, detail, count, block.captured_monotonic_ns, block.captured_utc_ns
        )
