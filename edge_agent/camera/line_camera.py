"""Line camera: converts a backend's blocks to frames of the bundle's height, all lines counted.

It connects the parts of `stream`: reconnect, ledger, pixel_formats, image_checks, clock, cutter.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

from edge_agent.camera.base import Backend, CameraCounts, CameraStatus, EndOfStream
from edge_agent.camera.stream.clock import ClockMap
from edge_agent.camera.stream.frame_cutter import FrameCutter
from edge_agent.camera.stream.image_checks import ImageChecks
from edge_agent.camera.stream.ledger import BlockLedger, MissingLines
from edge_agent.camera.stream.pixel_formats import decode
from edge_agent.camera.stream.reconnect import Outage, ReconnectingBackend
from edge_agent.camera.stream.status import LINE_RATE, StreamStatus
from edge_agent.frame import Block, Frame, Gap, GapReason, Image


class LineCamera:
    """Implementation of `base.Camera` on top of any backend."""

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
        """Open the camera.

        Args:
            open_backend: Opens the backend; called again after each loss.
            wait: Wait for a camera that is absent at the start.
            colour: Deliver a colour camera's frames as RGB, else as grey.
            frame_lines: Height of the frames; None keeps the blocks' height.
            overlap_lines: Number of lines that consecutive frames share.
            encoder_counts_per_line: Encoder counts per line, if known.
            check_images: Declare black, saturated and frozen images as gaps.
            now_s: Clock for the pauses between attempts to reopen a lost camera.
            sleep: Sleep function for these pauses.

        Raises:
            CameraError: The camera cannot be opened.
        """
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
        self._lost_blocks = 0  # lost blocks that the status already includes
        self._ended = False
        self._look_at_source()

    @property
    def live(self) -> bool:
        """Return True if blocks arrive at the camera's rate, False if they wait for `grab`."""
        return self._source.live

    @property
    def status(self) -> CameraStatus:
        """Return the camera's state. May be called from any thread."""
        return self._condition.status

    @property
    def counts(self) -> CameraCounts:
        """Return the counts of the run. May be called from any thread."""
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
        """Return the next frame or gap; None after `timeout_s`. Raises EndOfStream at the end."""
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
        """End the capture; return the frames and gaps that `grab` has not returned yet."""
        self._end()
        rest = list(self._ready)
        self._ready.clear()
        return rest

    def close(self) -> None:
        """Release the camera. May be called twice."""
        self._source.close()

    def _take(self, timeout_s: float) -> bool:
        """Take one block or outage from the source; return False if none arrived."""
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
            # The outage's length is known only when the first block after it arrives.
            self._outage = self._outage or taken
            return True
        self._block(taken)
        return True

    def _silence(self) -> None:
        """Emit a gap that has been held back long enough, and count blocks that the stream lost."""
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
        at = self._clock.utc_ns(block.camera_ns, block.camera_clock, block.span.captured_utc_ns)
        block = replace(block, span=replace(block.span, captured_utc_ns=at))
        holes, placed, misfit = self._ledger.take(block, self._source.counters)
        self._lost_blocks = self._source.counters.lost_blocks or 0
        for hole in holes:
            self._hole(hole)
            self._judge(hole.reason.value, hole.detail, hole.block_count, block)
        if placed is None:
            return
        image, fault = self._image(placed)
        if fault or image is None:
            reason, detail = fault or (GapReason.BAD_FRAME, "no data")
            self._useless[reason.value] += 1
            self._judge(reason.value, detail, 1, block)
            self._hole(MissingLines(reason=reason, detail=detail, span=placed.span, block_count=1))
            return
        if misfit:
            self._useless[LINE_RATE] += 1
        self._judge(LINE_RATE if misfit else "", misfit, 1, block)
        self._ready += self._cutter.take(placed, image)

    def _image(self, block: Block) -> tuple[Image | None, tuple[GapReason, str] | None]:
        if block.fault:
            return None, (block.fault_reason, block.fault)
        if block.data is None or block.span.line_count is None:
            return None, None
        try:
            image = decode(
                block.data,
                block.pixel_format,
                block.span.line_count,
                block.width_px,
                colour=self._colour,
            )
        except ValueError as error:
            return None, (GapReason.BAD_FRAME, str(error))
        return image, self._plausibility.fault(image) if self._checks else None

    def _hole(self, hole: MissingLines) -> None:
        self._ready += self._cutter.skip(hole)

    def _judge(self, reason: str, detail: str, count: int, block: Block) -> None:
        self._condition.blocks(
            reason, detail, count, block.span.captured_monotonic_ns, block.span.captured_utc_ns
        )
