"""Accuracy of a whole line on simulated strips with known truth: gate, segmenter, regions.

Gate and Segmenter are those of the line. Frames with a small defect (less than `MIN_DEFECT_PX`, a
sliver at a seam) are neither defective nor clean: they are counted, not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Bundle
from edge_agent.frame import ClassMap, Image
from edge_agent.inspection.gate import Gate
from edge_agent.inspection.runtime import choose
from edge_agent.inspection.segmenter import Segmenter, class_map
from edge_agent.simulation.rolled_steel import SteelStrip
from workshop.datasets.simulated import FRAME_LINES, MIN_DEFECT_PX
from workshop.statistics import Estimate, Share, mean, share

TEST_SEEDS = range(9_000, 10_000)
"""Strips that were not used to choose any weight, threshold or rule."""
FRAMES_PER_STRIP = 50
_MATCHED_COVER = 0.25


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one pair of artifacts.

    `recall`: share of defective frames alerted. `false_alerts`: share of clean frames alerted.
    `matched`: defects with at least a quarter of their pixels found, of any class; `class_right` of
    those. `dice`: over defective frames, pixels of the right class, missed frames as 0.
    """

    artifact: str
    recall: Share
    false_alerts: Share
    gate_recall: Share
    gate_passed_clean: Share
    matched: Share
    class_right: Share
    dice: Estimate
    slivers: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """Average precision of the best plain grey-level threshold, frame by frame."""

    rule: str
    average_precision: float
    defective_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Simulated frame with its truth."""

    image: Image
    truth: ClassMap
    defects: tuple[tuple[int, NDArray[np.bool_]], ...]
    """Class and mask on the frame of each defect that touches it."""

    @property
    def defect_px(self) -> int:
        """Return the number of defect pixels."""
        return int(np.count_nonzero(self.truth))


def cases(first_seed: int, frames: int) -> Iterator[Case]:
    """Yield `frames` frames, FRAMES_PER_STRIP of each strip from `first_seed` on."""
    for number in range(frames):
        seed, index = divmod(number, FRAMES_PER_STRIP)
        if index == 0:
            strip = SteelStrip(first_seed + seed)
        first = index * FRAME_LINES
        yield Case(
            strip.render(first, FRAME_LINES),
            strip.truth(first, FRAME_LINES),
            tuple(
                (mark.class_id, strip.mask_of(mark, first, FRAME_LINES))
                for mark in strip.defects(first, FRAME_LINES)
            ),
        )


class _Judge:
    """Collector of the decisions of one pair of artifacts."""

    def __init__(self, bundle: Bundle, label: str, threads: int) -> None:
        manifest = bundle.manifest
        self._label = label
        gate = choose(bundle, manifest.gate, precision=label, threads=threads)
        maps = choose(bundle, manifest.segmenter, precision=label, threads=threads)
        self._gate = Gate(manifest.gate.input, gate)
        self._segmenter = Segmenter(manifest.segmenter.input, maps, manifest.regions)
        self._frames: list[tuple[bool, bool, bool]] = []  # defective, suspect, alerted
        self._dice: list[float] = []
        self._right: list[bool] = []
        self._defects = self._slivers = 0

    def see(self, case: Case) -> None:
        shape = (case.truth.shape[0], case.truth.shape[1])
        verdict = self._gate.judge(case.image)
        suspect = verdict.suspect
        found = self._segmenter.find(case.image, verdict.suspect_tiles) if suspect else ()
        if 0 < case.defect_px < MIN_DEFECT_PX:
            self._slivers += 1
            return
        defective = case.defect_px > 0
        self._frames.append((defective, suspect, bool(found)))
        if not defective:
            return
        got = class_map(found, shape)
        right = np.count_nonzero((got == case.truth) & (got > 0))
        self._dice.append(2 * right / (np.count_nonzero(got) + case.defect_px))
        for class_id, mask in case.defects:
            self._match(class_id, mask, case, got)

    def _match(self, class_id: int, mask: NDArray[np.bool_], case: Case, got: ClassMap) -> None:
        # Restrict to the visible part: a later mark may cover it.
        on_frame = mask & (case.truth == class_id)
        area = int(np.count_nonzero(on_frame))
        if area < MIN_DEFECT_PX:
            return
        self._defects += 1
        classes = np.bincount(got[on_frame])
        if classes[1:].sum() >= _MATCHED_COVER * area:
            self._right.append(int(classes[1:].argmax()) + 1 == class_id)

    def result(self) -> Result:
        table = np.array(self._frames, dtype=bool).reshape(-1, 3)
        bad, good = table[table[:, 0]], table[~table[:, 0]]
        return Result(
            artifact=self._label,
            recall=share(int(bad[:, 2].sum()), len(bad)),
            false_alerts=share(int(good[:, 2].sum()), len(good)),
            gate_recall=share(int(bad[:, 1].sum()), len(bad)),
            gate_passed_clean=share(int(good[:, 1].sum()), len(good)),
            matched=share(len(self._right), self._defects),
            class_right=share(sum(self._right), len(self._right)),
            dice=mean(self._dice),
            slivers=self._slivers,
        )


def judge(
    bundle: Bundle,
    labels: Sequence[str],
    *,
    first_seed: int,
    frames: int,
    threads: int,
    progress: Callable[[], None],
) -> tuple[tuple[Result, ...], Baseline]:
    """Judge every pair of artifacts in `labels` on the same frames; return also the baseline."""
    judges = [_Judge(bundle, label, threads) for label in labels]
    grey: list[dict[str, float]] = []
    defective = []
    for case in cases(first_seed, frames):
        for one in judges:
            one.see(case)
        if not 0 < case.defect_px < MIN_DEFECT_PX:
            grey.append(_grey_scores(case.image))
            defective.append(case.defect_px > 0)
        progress()
    return tuple(one.result() for one in judges), _baseline(grey, np.array(defective))


def _grey_scores(image: Image) -> dict[str, float]:
    """Return the share of pixels darker, brighter or further from the frame's mean than a level."""
    pixels = image.astype(np.int16)
    mean_level = int(pixels.mean())
    scores = {f"darker than {t}": float((pixels < t).mean()) for t in range(20, 100, 10)}
    scores |= {f"brighter than {t}": float((pixels > t).mean()) for t in range(100, 250, 10)}
    away = np.abs(pixels - mean_level)
    return scores | {f"{t} from the mean": float((away > t).mean()) for t in range(20, 120, 10)}


def _baseline(grey: list[dict[str, float]], defective: NDArray[np.bool_]) -> Baseline:
    """Return the best rule, chosen on these same frames: the choice favours the baseline."""
    best, rule = 0.0, ""
    for name in grey[0]:
        value = average_precision(defective, np.array([scores[name] for scores in grey]))
        if value > best:
            best, rule = value, name
    return Baseline(rule, best, float(defective.mean()))


def average_precision(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the mean of the precision at each positive; in ties positives come last."""
    order = np.lexsort((truth, -scores))
    hits = truth[order]
    if not hits.any():
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, hits.size + 1)
    return float(precision[hits].mean())


def table(results: Sequence[Result], baseline: Baseline) -> str:
    """Return the results and the baseline as a text table."""

    def value(one: Share | Estimate) -> str:
        if one.value is None:
            return "-"
        return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"

    def shown(one: Share) -> str:
        return f"{one.k}/{one.n} = {value(one)}"

    lines = []
    for r in results:
        lines += [
            f"{r.artifact}",
            f"  frame recall            {shown(r.recall)}",
            f"  false alerts on clean   {shown(r.false_alerts)}",
            f"  gate alone: recall      {shown(r.gate_recall)}",
            f"  gate alone: clean on    {shown(r.gate_passed_clean)}",
            f"  defects matched         {shown(r.matched)}",
            f"  class right of matched  {shown(r.class_right)}",
            f"  mean Dice, defective    {value(r.dice)} over {r.dice.n} frames",
            f"  not judged: {r.slivers} frames with under {MIN_DEFECT_PX} px of defect",
        ]
    lines.append(
        f"grey-level baseline: AP {baseline.average_precision:.3f} ({baseline.rule}; chance "
        f"{baseline.defective_share:.3f})"
    )
    return "\n".join(lines)
