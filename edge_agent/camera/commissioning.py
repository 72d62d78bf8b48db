"""Commissioning figures of a camera: exposure, focus, rates, test result.

Pure functions of blocks and images. A figure that cannot be known is None, not 0.
"""

from __future__ import annotations

from collections import deque
from statistics import fmean, pstdev

import msgspec
import numpy as np

from edge_agent.frame import Block, Image

_BINS = 16
_BARS = " ▁▂▃▄▅▆▇█"
_RGB_TO_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_KEPT_INTERVALS = 200_000


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """Exposure of one image in grey levels 0 to 255.

    Shares are fractions of its pixels; `histogram` has 16 bins of equal width.
    """

    mean: float
    p1: int
    p50: int
    p99: int
    black_share: float
    saturated_share: float
    histogram: tuple[float, ...]

    @property
    def bars(self) -> str:
        """Return the histogram as a line of bar characters."""
        most = max(self.histogram)
        return "".join(_BARS[round((len(_BARS) - 1) * share / most)] for share in self.histogram)


def exposure(image: Image) -> Exposure:
    """Measure the exposure of an image, over all channels."""
    counts = np.bincount(image.reshape(-1), minlength=256)
    below, total = np.cumsum(counts), image.size

    def percentile(share: float) -> int:
        return int(np.searchsorted(below, share * total))

    return Exposure(
        mean=round(float(counts @ np.arange(256) / total), 2),
        p1=percentile(0.01),
        p50=percentile(0.5),
        p99=percentile(0.99),
        black_share=float(counts[0] / total),
        saturated_share=float(counts[255] / total),
        histogram=tuple(round(float(n) / total, 5) for n in counts.reshape(_BINS, -1).sum(axis=1)),
    )


def focus(image: Image) -> float | None:
    """Return Brenner's focus measure across the strip over the squared mean, or None if too dark.

    The lens is in focus at the maximum. Values compare only between images of the same steel.
    """
    grey = image.astype(np.float32) if image.ndim == 2 else image.astype(np.float32) @ _RGB_TO_GREY
    mean = float(grey.mean())
    if grey.shape[1] < 3 or mean < 1:
        return None
    return float(np.mean((grey[:, 2:] - grey[:, :-2]) ** 2)) / mean**2


class BlockInterval(msgspec.Struct, frozen=True, kw_only=True):
    """Interval between the starts of consecutive blocks, by the camera's clock if it has one."""

    clock: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    stdev_ms: float


class BlockRecorder:
    """Recorder of arrival times and line counts of blocks, between backend and line camera."""

    def __init__(self) -> None:
        self.blocks = self.complete = self.lines = self.bytes = 0
        self._last: tuple[int | None, int | None, int] | None = None
        self._host: deque[int] = deque(maxlen=_KEPT_INTERVALS)
        self._camera: deque[int] = deque(maxlen=_KEPT_INTERVALS)
        self._span: tuple[int, int] | None = None
        self._lines_before_last = 0

    def take(self, block: Block) -> None:
        """Record one block."""
        now = block.span.captured_monotonic_ns
        self._span = (self._span[0] if self._span else now, now)
        self._lines_before_last = self.lines
        self.blocks += 1
        self.complete += not block.fault
        self.lines += block.span.line_count or 0
        self.bytes += block.data.nbytes if block.data is not None else 0
        if self._last:
            block_id, camera_ns, host_ns = self._last
            follows = block.block_id is None or (
                block_id is not None and block.block_id == block_id + 1
            )
            if follows:
                self._host.append(now - host_ns)
                if camera_ns is not None and block.camera_ns is not None:
                    self._camera.append(block.camera_ns - camera_ns)
        self._last = (block.block_id, block.camera_ns, now)

    def forget_last(self) -> None:
        """Start a new sequence after a camera loss: the next interval is not measured."""
        self._last = None

    @property
    def seconds(self) -> float:
        """Return the time between the first and the last block, in s."""
        return (self._span[1] - self._span[0]) / 1e9 if self._span else 0.0

    @property
    def blocks_per_second(self) -> float | None:
        """Return the block rate, or None with fewer than two blocks."""
        return (self.blocks - 1) / self.seconds if self.seconds else None

    @property
    def lines_per_second(self) -> float | None:
        """Return the line rate, or None with fewer than two blocks."""
        return self._lines_before_last / self.seconds if self.seconds else None

    @property
    def interval(self) -> BlockInterval | None:
        """Return the statistics of the intervals, or None with fewer than two intervals."""
        by_camera = len(self._camera) > 1
        taken = self._camera if by_camera else self._host
        if len(taken) < 2:
            return None
        ms = np.sort(np.fromiter(taken, np.float64)) / 1e6
        return BlockInterval(
            clock="camera" if by_camera else "host",
            p50_ms=round(float(np.percentile(ms, 50)), 4),
            p99_ms=round(float(np.percentile(ms, 99)), 4),
            max_ms=round(float(ms[-1]), 4),
            stdev_ms=round(pstdev(ms.tolist(), fmean(ms.tolist())), 4),
        )
