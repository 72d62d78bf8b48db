"""Figures of the segmenter and of the line from the predictions on each image. Pure.

Dice is 2 |A and B| / (|A| + |B|), IoU |A and B| / |A or B|; a pixel has one class or none.
Defective images without a drawn defect count for the gate and for alerts, never for pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.frame import ClassMap
from workshop.datasets.base import Planes
from workshop.statistics import Estimate, Floats, Share, estimate, mean, share

MATCHED_COVER = 0.25
"""Share of a defect's pixels that must be found, as in the benchmarks."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ImageOutcome:
    """Predictions on one image compared with its drawn defects.

    `hit`, `found` and `drawn` are pixels, int64 (1 + classes,), in both, predicted, true; index 0
    is any class. `given` is, for each drawn defect, the predicted class of most of its found
    pixels; 0: found to less than a quarter. `regions` is the number of predicted defects.
    """

    regions: int
    hit: Counts
    found: Counts
    drawn: Counts
    given: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ImageRecord:
    """Results kept of one image; `kinds` is the class of each drawn defect.

    `pixels` is the result of the segmenter alone, every pixel of at least the lowest probability;
    `regions` the same under the region rule; `line` the line's result at each threshold. None if
    there is no such stage.
    """

    name: str
    index: int
    defective: bool
    kinds: tuple[int, ...]
    logit: float | None
    pixels: ImageOutcome | None
    regions: ImageOutcome | None
    line: tuple[ImageOutcome, ...]


class ClassFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one class.

    `dice`, `iou`: mean over the images with the class drawn. Pooled: over the pixels of all drawn
    images, including false detections where the class is not drawn.
    """

    class_id: int
    name: str
    dice: Estimate
    iou: Estimate
    pooled_dice: Estimate
    pooled_iou: Estimate


class SegmenterFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of the segmenter.

    `dice`: mean over the classes drawn on an image, then over the drawn images. `binary_dice`:
    defect or none, any class. `mean_iou`: per class intersections over unions, summed over clean
    and drawn images, then the mean over the classes that occur. `competition_dice`: per image and
    class, 1 if both are empty, mean over clean and drawn images, regions as the line makes them;
    `empty_dice` is the score of an empty submission. `matched`: drawn defects found to at least a
    quarter, `class_right` of those.
    """

    classes: tuple[ClassFigures, ...]
    dice: Estimate
    binary_dice: Estimate
    mean_iou: Estimate
    competition_dice: Estimate
    empty_dice: Estimate
    matched: Share
    class_right: Share


class LineFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of both stages at `threshold` (a probability; None: every image is segmented).

    `recall`: share of defective images alerted; `false_alerts`: of clean images. `dice`: as the
    segmenter's, missed images count 0. `segmented`: images that need the segmenter.
    """

    threshold: float | None
    recall: Share
    false_alerts: Share
    dice: Estimate
    competition_dice: Estimate
    matched: Share
    class_right: Share
    segmented: Share


def outcome(planes: Planes, classes: ClassMap, regions: int, parts: Components) -> ImageOutcome:
    """Compare a prediction with the drawn defects.

    `classes` is the prediction, uint8 of the planes' (lines, pixels); `parts` are the planes'
    components.
    """
    count = planes.shape[2]
    hit, drawn = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    found = np.bincount(classes.ravel(), minlength=count + 1)[: count + 1].astype(np.int64)
    found[0] = classes.size - found[0]
    any_class = planes.any(axis=2)
    drawn[0], hit[0] = np.count_nonzero(any_class), np.count_nonzero(any_class & (classes > 0))
    for k in range(1, count + 1):
        plane = planes[:, :, k - 1]
        drawn[k] = np.count_nonzero(plane)
        hit[k] = np.count_nonzero(plane & (classes == k)) if drawn[k] and found[k] else 0
    return ImageOutcome(regions, hit, found, drawn, parts.given(classes))


class Components:
    """Connected defects drawn on one image: 8-connected within a class, from 1 px on."""

    def __init__(self, planes: Planes) -> None:
        self._count = planes.shape[2]
        self._labels: list[NDArray[np.int64]] = []
        kinds: list[int] = []
        for k in range(self._count):
            if planes[:, :, k].any():
                plane = np.ascontiguousarray(planes[:, :, k]).view(np.uint8)
                number, labels = cv2.connectedComponents(plane, connectivity=8)
                kinds += [k + 1] * (number - 1)
                self._labels.append(np.asarray(labels, np.int64))
        self.kinds = tuple(kinds)

    def given(self, classes: ClassMap) -> tuple[int, ...]:
        """Return for each defect the class of most of its found pixels (first of equals) or 0."""
        given: list[int] = []
        for labels in self._labels:
            key = labels * (self._count + 1) + classes
            rows = (int(labels.max()) + 1) * (self._count + 1)
            table = np.bincount(key.ravel(), minlength=rows).reshape(-1, self._count + 1)[1:]
            enough = table[:, 1:].sum(axis=1) >= MATCHED_COVER * table.sum(axis=1)
            given += np.where(enough, table[:, 1:].argmax(axis=1) + 1, 0).tolist()
        return tuple(given)


def dice(one: ImageOutcome) -> Floats:
    """Return the Dice per class (0: any), float64 (1 + classes,); NaN where both are empty."""
    return _ratio(2 * one.hit, one.found + one.drawn)


def image_dice(one: ImageOutcome) -> float | None:
    """Return the mean over the classes drawn on the image; None if nothing is drawn."""
    there = one.drawn[1:] > 0
    return float(dice(one)[1:][there].mean()) if there.any() else None


def segmenter_figures(
    records: Sequence[ImageRecord], class_names: Sequence[str]
) -> SegmenterFigures:
    """Return the figures of records that all have `pixels` and `regions`."""
    shown = [(r, r.pixels) for r in records if r.pixels and _drawn_or_clean(r)]
    drawn = [one for r, one in shown if r.defective]
    kept = [r.regions for r in records if r.regions and _drawn_or_clean(r)]
    binary = [float(dice(one)[0]) for one in drawn]
    return SegmenterFigures(
        classes=tuple(_class(k, name, drawn) for k, name in enumerate(class_names, 1)),
        dice=mean(_dices(drawn)),
        binary_dice=mean(binary),
        mean_iou=_mean_iou([one for _, one in shown]),
        competition_dice=mean([_competition(one) for one in kept]),
        empty_dice=mean([float((one.drawn[1:] == 0).mean()) for one in kept]),
        **_matched([(r.kinds, one) for r, one in shown]),
    )


def line_figures(
    records: Sequence[ImageRecord],
    threshold: float | None,
    suspect: Callable[[ImageRecord], bool],
    result: Callable[[ImageRecord], ImageOutcome | None],
) -> LineFigures:
    """Return the figures of the line at `threshold`.

    `suspect` and `result` return its decision and its result on a record. A result of None means
    that a stage is missing.
    """
    pairs = [(r, one) for r in records if (one := result(r)) is not None]
    judged = [(r, one) for r, one in pairs if _drawn_or_clean(r)]
    bad = [one.regions > 0 for r, one in pairs if r.defective]
    good = [one.regions > 0 for r, one in pairs if not r.defective]
    return LineFigures(
        threshold=threshold,
        recall=share(sum(bad), len(bad)),
        false_alerts=share(sum(good), len(good)),
        dice=mean(_dices([one for _, one in judged])),
        competition_dice=mean([_competition(one) for _, one in judged]),
        segmented=share(sum(suspect(r) for r, _ in pairs), len(pairs)),
        **_matched([(r.kinds, one) for r, one in judged]),
    )


def _drawn_or_clean(record: ImageRecord) -> bool:
    return bool(record.kinds) or not record.defective


def _dices(outcomes: Sequence[ImageOutcome]) -> list[float]:
    return [value for one in outcomes if (value := image_dice(one)) is not None]


def _competition(one: ImageOutcome) -> float:
    return float(np.nan_to_num(dice(one)[1:], nan=1.0).mean())


def _matched(defects: Sequence[tuple[tuple[int, ...], ImageOutcome]]) -> dict[str, Share]:
    pairs = [pair for kinds, one in defects for pair in zip(kinds, one.given, strict=True)]
    found = [kind == given for kind, given in pairs if given]
    return {
        "matched": share(len(found), len(pairs)),
        "class_right": share(sum(found), len(found)),
    }


def _class(k: int, name: str, drawn: Sequence[ImageOutcome]) -> ClassFigures:
    """Return the figures of class `k`; `drawn` are the outcomes on all drawn images."""
    sums = np.array([(o.hit[k], o.found[k], o.drawn[k]) for o in drawn], np.float64).reshape(-1, 3)
    own = sums[sums[:, 2] > 0]
    # A class that is drawn nowhere gets no figure: every detection of it is wrong.
    pooled = sums if len(own) else own
    return ClassFigures(
        class_id=k,
        name=name,
        dice=mean(_pooled_dice(own)),
        iou=mean(_pooled_iou(own)),
        pooled_dice=estimate(pooled, _pooled_dice),
        pooled_iou=estimate(pooled, _pooled_iou),
    )


def _pooled_dice(sums: Floats) -> Floats:
    return _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])


def _pooled_iou(sums: Floats) -> Floats:
    return _ratio(sums[:, 0], sums[:, 1] + sums[:, 2] - sums[:, 0])


def _mean_iou(outcomes: Sequence[ImageOutcome]) -> Estimate:
    rows = [np.r_[o.hit[1:], (o.found + o.drawn - o.hit)[1:]] for o in outcomes]

    def figure(sums: Floats) -> Floats:
        hit, union = np.hsplit(sums, 2)
        # Classes in neither truth nor prediction have no IoU.
        there = union > 0
        return _ratio(np.where(there, _ratio(hit, union), 0).sum(axis=1), there.sum(axis=1))

    return estimate(np.array(rows, np.float64), figure)


def _ratio(above: Floats | Counts, below: Floats | Counts) -> Floats:
    """Return the ratio, NaN where the denominator is 0."""
    out = np.full(below.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out
