"""Comparison of two bundles on the same frames, and the criteria for the new one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edge_agent.config.config import UpdateConfig
from edge_agent.messages.state import TrialReport

_SHOWN_FRAMES = 20
TRIAL_S = 600.0
"""Time limit of a trial on a slow line, so that an update fits into a shift break."""
MIN_FRAMES = 20
"""Least number of frames for a trial that ends by time; `trial_frames` if that is smaller."""
MAX_SLOWDOWN = 1.5
"""Largest permitted slowdown without `budget_ms`: a line rarely has time for twice the work."""


class FrameJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """Judgement of one bundle on a frame; `error` is the reason of a failure, or ""."""

    suspect: bool = False
    defects: int = 0
    judged_ms: float = 0.0
    error: str = ""


class FrameComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Judgements of both bundles on one frame.

    `both_px` and `either_px` count the pixels marked as defect by both, and by at least one.
    """

    frame_id: int
    running: FrameJudgement
    candidate: FrameJudgement
    both_px: int = 0
    either_px: int = 0


class BundleComparison:
    """Running comparison of two bundles, added to frame by frame."""

    def __init__(self) -> None:
        self._looks: list[FrameComparison] = []
        self._errors = [0, 0]
        self._live_ms: list[float] = []
        self.first_error = ""

    def add(self, look: FrameComparison, live_ms: float) -> None:
        """Add one frame; `live_ms` is the running bundle's time for it on the line."""
        failed = [bool(look.running.error), bool(look.candidate.error)]
        self._errors = [n + more for n, more in zip(self._errors, failed, strict=True)]
        if look.candidate.error and not look.running.error:
            self.first_error = self.first_error or look.candidate.error
        self._looks.append(look)
        self._live_ms.append(live_ms)

    @property
    def frames(self) -> int:
        """Return the number of frames compared."""
        return len(self._looks)

    @property
    def errors(self) -> int:
        """Return the number of frames on which only the candidate failed."""
        return sum(bool(one.candidate.error and not one.running.error) for one in self._looks)

    def report(self) -> TrialReport:
        """Return the totals so far; times in ms, shares and `mask_iou` in 0..1."""
        both = [one for one in self._looks if not one.running.error and not one.candidate.error]
        turned = [one for one in both if one.running.suspect != one.candidate.suspect]
        either = sum(one.either_px for one in both)
        old_ms = [one.running.judged_ms for one in both]
        new_ms = [one.candidate.judged_ms for one in both]
        slowdown = sum(new_ms) / sum(old_ms) if sum(old_ms) else 0.0
        return TrialReport(
            frames=self.frames,
            errors_running=self._errors[0],
            errors_candidate=self._errors[1],
            changed_to_suspect=sum(one.candidate.suspect for one in turned),
            changed_to_clean=sum(one.running.suspect for one in turned),
            turned_frames=tuple(one.frame_id for one in turned[:_SHOWN_FRAMES]),
            defective_running=sum(one.running.defects > 0 for one in both),
            defective_candidate=sum(one.candidate.defects > 0 for one in both),
            defects_running=sum(one.running.defects for one in both),
            defects_candidate=sum(one.candidate.defects for one in both),
            mask_iou=round(sum(one.both_px for one in both) / either, 4) if either else 1.0,
            p50_ms_running=_percentile(old_ms, 50),
            p50_ms_candidate=_percentile(new_ms, 50),
            p95_ms_running=_percentile(old_ms, 95),
            p95_ms_candidate=_percentile(new_ms, 95),
            slowdown=round(slowdown, 3),
            expected_p95_ms=round(_percentile(self._live_ms, 95) * slowdown, 3),
        )


def is_over(comparison: BundleComparison, took_s: float, rules: UpdateConfig) -> bool:
    """Return True if the trial has enough frames, or the candidate failed on one."""
    frames, all_of_them = comparison.frames, rules.trial_frames
    by_time = took_s >= TRIAL_S and frames >= min(MIN_FRAMES, all_of_them)
    return comparison.errors > 0 or frames >= all_of_them or by_time


def objection(comparison: BundleComparison, rules: UpdateConfig) -> str:
    """Return the reason why the candidate may not take over, or ""."""
    report = comparison.report()
    # No error is permitted: a frame that a bundle fails on is a gap in the inspection.
    if comparison.errors:
        return f"failed on {comparison.errors} of {report.frames} frames: {comparison.first_error}"
    turned = (report.changed_to_suspect + report.changed_to_clean) / max(1, report.frames)
    if turned > rules.max_turned_share:
        return (
            f"judges {turned:.1%} of the frames otherwise, update.max_turned_share is "
            f"{rules.max_turned_share:g}"
        )
    if rules.budget_ms is None and report.slowdown > MAX_SLOWDOWN:
        return (
            f"takes {report.slowdown:.2f} times as long, {MAX_SLOWDOWN:g} is the most; give "
            "update.budget_ms if the line has the time"
        )
    if rules.budget_ms is not None and report.expected_p95_ms > rules.budget_ms:
        return (
            f"would take {report.expected_p95_ms:.1f} ms a frame (p95), update.budget_ms is "
            f"{rules.budget_ms:g}"
        )
    return ""


def fault_of_proof(
    frames: int, failed: int, judged_ms: Sequence[float], rules: UpdateConfig
) -> str:
    """Return the reason why a bundle on probation must be rolled back, or "".

    `judged_ms` is compared with the budget only after `prove_frames` frames.
    """
    if failed:
        return f"failed on {failed} of {frames} frames as the running bundle"
    p95_ms = _percentile(judged_ms, 95)
    if frames >= rules.prove_frames and rules.budget_ms is not None and p95_ms > rules.budget_ms:
        return (
            f"takes {p95_ms:.1f} ms a frame (p95) as the running bundle, update.budget_ms is "
            f"{rules.budget_ms:g}"
        )
    return ""


def _percentile(values: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 3) if values else 0.0
