"""Criteria by which an artifact is as good as the float network. Pure.

A small mean error can hide the one defect that matters. The criteria therefore limit decisions:
defects lost, false alarms added, masks degraded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from export.acceptance.scoring import Scores
from workshop.thresholds import choose

_REFINEMENTS = 2

Flags = NDArray[np.bool_]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on the decisions that an artifact may lose against the float network.

    `miss_rate` (0..1): share of defective images that a threshold may miss, for the float network
    and the artifact alike. `more_false_alarms`: percentage points of the defect-free images.
    `dice_drop`: limit on the drop of the mean Dice.
    """

    miss_rate: float = 0.005
    more_false_alarms: float = 1.0
    dice_drop: float = 0.01

    def alarms(self, defect_free: int) -> int:
        """Return the number of additional false alarms allowed on `defect_free` images.

        The share is rounded down, but at least one is allowed unless the limit is 0: chance alone
        can add a single image, and one percentage point of 50 images would round to none.
        """
        share = math.floor(self.more_false_alarms * defect_free / 100 + 1e-9)
        return max(1, share) if self.more_false_alarms > 0 else 0


def fault(stage: str, reference: Scores, candidate: Scores, limits: Limits) -> str:
    """Return why the candidate must not replace the reference, or "" if it may.

    Both are scored on the same images. Each gate uses its own threshold, chosen on these images:
    shifted scores are acceptable, a changed order of clean and defective images is not.
    """
    if np.isnan(candidate.values).any():
        return f"no number for {candidate.names[int(np.isnan(candidate.values).argmax())]}"
    if stage == "segmenter":
        drop = float(reference.values.mean() - candidate.values.mean())
        if drop > limits.dice_drop + 1e-12:
            return f"mean Dice falls by {drop:.4f}, {limits.dice_drop:g} allowed"
        return ""
    caught, kept = (
        one.values >= choose(one.values, one.defective, limits.miss_rate)
        for one in (reference, candidate)
    )
    return gate_fault(candidate.names, reference.defective, caught, kept, limits)


def gate_fault(names: Sequence[str], bad: Flags, caught: Flags, kept: Flags, limits: Limits) -> str:
    """Return the fault of a gate's decisions, as `fault` does, or "" if there is none.

    Args:
        names: Names of the images, n of them.
        bad: bool (n,), the defective images.
        caught: bool (n,), the images that the float gate finds suspect.
        kept: bool (n,), the images that the artifact finds suspect.
        limits: Limits on lost defects and added false alarms.
    """
    if (lost := bad & caught & ~kept).any():
        return f"{int(lost.sum())} defects lost, first {names[int(lost.argmax())]}"
    more = int((~bad & kept).sum()) - int((~bad & caught).sum())
    allowed = limits.alarms(int((~bad).sum()))
    if more > allowed:
        return (
            f"{more} more false alarms on {int((~bad).sum())} defect-free images, {allowed} allowed"
        )
    return ""


def fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """Return a small k in 0..`most` for which `holds` is true, or None.

    Each call of `holds` costs a conversion and a run on the search set. k therefore doubles (0, 1,
    2, 4, ..., `most`) until `holds` is true, and the last gap is then halved at most twice. The
    returned k was tested; it is probably, but not certainly, the smallest.
    """
    failed, k = -1, 0
    while not holds(k):
        if k >= most:
            return None
        failed, k = k, min(most, max(1, 2 * k))
    for _ in range(_REFINEMENTS):
        middle = (failed + k) // 2
        if middle <= failed or middle >= k:
            break
        if holds(middle):
            k = middle
        else:
            failed = middle
    return k
