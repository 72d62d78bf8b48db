"""When a converted network is as good as the float one, by what the line cares for. Pure.

The mean error may be small and the one defect that matters be lost. So not errors are bounded but
decisions: defects lost, false alarms added, masks spoilt.
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
    """`miss_rate` (0..1): what the thresholds may miss, of the float network and of the artifact
    alike. `more_false_alarms`: percentage points of the defect-free images. `dice_drop`: of the
    mean."""

    miss_rate: float = 0.005
    more_false_alarms: float = 1.0
    dice_drop: float = 0.01

    def alarms(self, defect_free: int) -> int:
        """More false alarms allowed on so many defect-free images: the share rounded down, but one
        at least, unless the limit is 0. A single image is within the reach of chance, and of 50
        images one point would be none."""
        share = math.floor(self.more_false_alarms * defect_free / 100 + 1e-9)
        return max(1, share) if self.more_false_alarms > 0 else 0


def fault(stage: str, reference: Scores, candidate: Scores, limits: Limits) -> str:
    """Why the candidate must not take the reference's place; "" where it may.

    Both on the same images. Each gate is held against its own threshold, chosen on these images:
    that scores move is no fault, that they mix is.
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
    """As `fault`, of decisions: `bad` are the defective images, `caught` those that the float gate
    finds suspect, `kept` those that the artifact does; each bool (n,)."""
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
    """A small k of 0 to `most` for which `holds`, or None.

    Each question costs a conversion and a look at the search set. So k doubles (0, 1, 2, 4, ...,
    `most`) until it holds, and is halved back into the last gap at most twice. The answer was
    asked for and held; that it is the least is likely, not certain.
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
