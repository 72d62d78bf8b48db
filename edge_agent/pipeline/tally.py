"""Counts and latencies of one run."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from edge_agent.frame import Frame, Gap, GapReason
from edge_agent.messages.health import StageTimes

_KEPT_TIMES = 20_000


class _Times:
    """Last 20,000 times of a stage, in ms, in fixed memory."""

    def __init__(self) -> None:
        self.count = 0
        self._ms = np.zeros(_KEPT_TIMES, np.float64)

    def add(self, ms: float) -> None:
        self._ms[self.count % _KEPT_TIMES] = ms
        self.count += 1

    def kept(self) -> NDArray[np.float64]:
        return self._ms[: self.count].copy()


class Tally:
    """Counts of one run, updated from several threads.

    Each frame and each line ends in `inspected` or in a gap; a gap counts `frame_count` frames.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.captured = self.inspected = self.suspect = self.defective = 0
        self.lines_captured = self.lines_inspected = self.gaps_of_unknown_length = 0
        self._gaps: Counter[GapReason] = Counter()
        self._gap_lines: Counter[GapReason] = Counter()
        self._times: dict[str, _Times] = {}

    def frame_captured(self, taken: Frame | Gap) -> None:
        """Count a frame, or the frames and lines of a gap, from the camera."""
        with self._lock:
            if isinstance(taken, Gap):
                self.captured += taken.frame_count
                self.lines_captured += taken.line_count or 0
            else:
                self.captured += 1
                self.lines_captured += taken.new_lines

    def frame_inspected(
        self, *, lines: int, suspect: bool, defective: bool, times_ms: dict[str, float]
    ) -> None:
        """Count an inspected frame.

        Args:
            lines: lines not yet counted with the previous frame.
            suspect: the gate found the frame suspect.
            defective: the frame has defects to report.
            times_ms: milliseconds by stage.
        """
        with self._lock:
            self.inspected += 1
            self.lines_inspected += lines
            self.suspect += suspect
            self.defective += defective
            for stage, ms in times_ms.items():
                if stage not in self._times:
                    self._times[stage] = _Times()
                self._times[stage].add(ms)

    def gap(self, gap: Gap) -> None:
        """Count a declared gap."""
        with self._lock:
            self._gaps[gap.reason] += gap.frame_count
            self._gap_lines[gap.reason] += gap.line_count or 0
            self.gaps_of_unknown_length += gap.line_count is None

    @property
    def in_work(self) -> int:
        """Frames taken and not judged yet; not 0 at the end of a run means a lost frame."""
        with self._lock:
            return self.captured - self.inspected - sum(self._gaps.values())

    def gaps(self) -> dict[str, int]:
        """Return the number of frames in gaps, by reason."""
        with self._lock:
            return {reason.value: count for reason, count in sorted(self._gaps.items())}

    @property
    def lines_in_work(self) -> int:
        """Lines taken and not judged yet; 0 at the end of a run."""
        with self._lock:
            return self.lines_captured - self.lines_inspected - sum(self._gap_lines.values())

    def gap_lines(self) -> dict[str, int]:
        """Return the number of lines in gaps, by reason."""
        with self._lock:
            return {reason.value: lines for reason, lines in sorted(self._gap_lines.items())}

    def times(self) -> dict[str, StageTimes]:
        """Return percentiles over the last 20,000 frames of each stage; `count` is the total."""
        with self._lock:
            kept = {stage: (one.count, one.kept()) for stage, one in self._times.items()}
        found = {}
        for stage, (count, times) in kept.items():
            p50, p95, p99 = (round(float(p), 3) for p in np.percentile(times, (50, 95, 99)))
            found[stage] = StageTimes(count=count, p50_ms=p50, p95_ms=p95, p99_ms=p99)
        return found
