"""Figures of segmenter and line: worked by hand, against scikit-learn, against slow loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from workshop.datasets.base import Planes
from workshop.segmentation_metrics import (
    Components,
    ImageOutcome,
    ImageRecord,
    dice,
    image_dice,
    line_figures,
    outcome,
    segmenter_figures,
)
from workshop.statistics import mean

NAMES = ("pit", "scratch")
_CLASSES = len(NAMES)


def planes_of(classes: np.ndarray) -> Planes:
    return classes[:, :, None] == np.arange(1, _CLASSES + 1)


def judged(
    planes: Planes, classes: np.ndarray, regions: int = 1
) -> tuple[ImageOutcome, Components]:
    parts = Components(planes)
    return outcome(planes, classes.astype(np.uint8), regions, parts), parts


def record(
    name: str, drawn: np.ndarray, found: np.ndarray, *, defective: bool | None = None
) -> ImageRecord:
    one, parts = judged(planes_of(drawn), found, int(found.any()))
    bad = bool(parts.kinds) if defective is None else defective
    return ImageRecord(name, 0, bad, parts.kinds, 0.0, one, one, (one,))


def grid(*rows: str) -> np.ndarray:
    return np.array([[int(c) for c in row] for row in rows], np.uint8)


CLEAN = grid("0000", "0000", "0000", "0000")


def test_a_defect_is_found_by_a_quarter_of_it_and_named_by_most_of_that() -> None:
    drawn = grid("1100", "1100", "0000", "0222")
    planes = planes_of(drawn)
    parts = Components(planes)
    assert parts.kinds == (1, 2)
    assert parts.given(grid("1000", "0000", "0000", "0000")) == (1, 0)  # a quarter is enough
    assert parts.given(grid("2200", "1000", "0000", "0001")) == (2, 1)  # the wrong class
    assert parts.given(grid("2000", "1000", "0000", "0000")) == (1, 0)  # of equals the first
    assert parts.given(grid("0011", "0011", "1111", "1000")) == (0, 0)  # beside it


def test_defects_join_over_corners_and_not_over_classes() -> None:
    assert Components(planes_of(grid("1000", "0100", "0002", "0020"))).kinds == (1, 2)
    assert Components(planes_of(grid("1010", "0000", "2200", "1100"))).kinds == (1, 1, 1, 2)


def test_a_defect_of_five_pixels_needs_two() -> None:
    parts = Components(planes_of(grid("1111", "1000", "0000", "0000")))
    assert parts.given(grid("1000", "0000", "0000", "0000")) == (0,)
    assert parts.given(grid("1100", "0000", "0000", "0000")) == (1,)


def test_pixels_of_two_classes_count_for_both() -> None:
    planes = np.zeros((4, 4, _CLASSES), bool)
    planes[0, :2] = True  # both classes on two pixels
    one, parts = judged(planes, grid("1220", "0000", "0000", "0000"))
    assert parts.kinds == (1, 2)
    assert one.drawn.tolist() == [2, 2, 2]
    assert one.found.tolist() == [3, 1, 2]
    assert one.hit.tolist() == [2, 1, 1]
    assert dice(one) == pytest.approx([4 / 5, 2 / 3, 2 / 4])


_maps = hnp.arrays(np.uint8, (5, 6), elements=st.integers(0, _CLASSES))
_planes = hnp.arrays(np.bool_, (5, 6, _CLASSES))


@settings(deadline=None)
@given(_planes, _maps)
def test_counts_are_what_a_slow_loop_counts(planes: Planes, classes: np.ndarray) -> None:
    one, _ = judged(planes, classes)
    hit, found, drawn = ([0] * (_CLASSES + 1) for _ in range(3))
    for line in range(5):
        for pixel in range(6):
            truth, guess = planes[line, pixel], int(classes[line, pixel])
            drawn[0] += bool(truth.any())
            found[0] += guess > 0
            hit[0] += bool(truth.any()) and guess > 0
            for k in range(1, _CLASSES + 1):
                drawn[k] += bool(truth[k - 1])
                found[k] += guess == k
                hit[k] += bool(truth[k - 1]) and guess == k
    assert (one.hit.tolist(), one.found.tolist(), one.drawn.tolist()) == (hit, found, drawn)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(_maps, _maps), min_size=1, max_size=5))
def test_dice_and_iou_are_scikit_learns(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    records = [record(str(i), drawn, found) for i, (drawn, found) in enumerate(images)]
    figures = segmenter_figures(records, NAMES)
    truth = np.concatenate([drawn.ravel() for drawn, _ in images])
    guess = np.concatenate([found.ravel() for _, found in images])
    there = sorted(({*truth.tolist(), *guess.tolist()}) - {0})
    if there:
        iou = metrics.jaccard_score(truth, guess, labels=there, average="macro")
        assert figures.mean_iou.value == pytest.approx(iou)
    else:
        assert figures.mean_iou.value is None
    dices = [
        # F1 of the pixels is Dice.
        metrics.f1_score(drawn.ravel(), found.ravel(), labels=labels, average="macro")
        for drawn, found in images
        if (labels := sorted(set(drawn.ravel().tolist()) - {0}))
    ]
    assert figures.dice.n == len(dices)
    if dices:
        assert figures.dice.value == pytest.approx(np.mean(dices))
    for k, of_class in enumerate(figures.classes, 1):
        own = [
            metrics.jaccard_score(drawn.ravel() == k, found.ravel() == k)
            for drawn, found in images
            if (drawn == k).any()
        ]
        assert of_class.iou.n == len(own)
        if own:
            assert of_class.iou.value == pytest.approx(np.mean(own))
            drawn_on = [(d, f) for d, f in images if d.any()]
            pooled = metrics.f1_score(
                np.concatenate([d.ravel() == k for d, _ in drawn_on]),
                np.concatenate([f.ravel() == k for _, f in drawn_on]),
            )
            assert of_class.pooled_dice.value == pytest.approx(pooled)


def four_images() -> list[ImageRecord]:
    """Half of a pit found; a scratch taken for a pit; a clean image with an alarm; a defective
    one that nobody drew."""
    return [
        record("pit", grid("1111", "0000", "0000", "0000"), grid("1100", "0000", "0000", "0000")),
        record(
            "as pit", grid("2200", "2200", "0000", "0000"), grid("1100", "1100", "0000", "0000")
        ),
        record("clean", CLEAN, grid("0000", "0000", "0000", "0022")),
        record("undrawn", CLEAN, grid("1111", "1111", "1111", "1111"), defective=True),
    ]


def test_the_segmenters_figures_by_hand() -> None:
    figures = segmenter_figures(four_images(), NAMES)
    pit, scratch = figures.classes
    assert (pit.dice.n, pit.dice.value) == (1, pytest.approx(2 * 2 / (2 + 4)))
    assert pit.iou.value == pytest.approx(2 / 4)
    # Pooled: the four pixels of the other image that were taken for a pit count against it.
    assert pit.pooled_dice.value == pytest.approx(2 * 2 / (2 + 4 + 4))
    assert pit.pooled_iou.value == pytest.approx(2 / (4 + 4))
    assert (scratch.dice.n, scratch.dice.value) == (1, 0)
    assert (figures.dice.n, figures.dice.value) == (2, pytest.approx((2 / 3 + 0) / 2))
    assert figures.binary_dice.value == pytest.approx((2 / 3 + 1) / 2)
    # The clean image's alarm is in the union of the scratches; the undrawn image is nowhere.
    assert figures.mean_iou.n == 3
    assert figures.mean_iou.value == pytest.approx((2 / 8 + 0 / 6) / 2)
    # Per image and class: (2/3, 1), (0, 0), (1, 0).
    assert figures.competition_dice.value == pytest.approx((5 / 6 + 0 + 1 / 2) / 3)
    assert figures.empty_dice.value == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert (figures.matched.k, figures.matched.n) == (2, 2)
    assert (figures.class_right.k, figures.class_right.n) == (1, 2)


def test_the_lines_figures_by_hand() -> None:
    records = four_images()
    pit = planes_of(grid("1111", "0000", "0000", "0000"))
    stopped = outcome(pit, CLEAN, 0, Components(pit))
    # The gate stops the first image and passes on the rest.
    figures = line_figures(
        records,
        0.25,
        lambda r: r.name != "pit",
        lambda r: stopped if r.name == "pit" else r.line[0],
    )
    assert figures.threshold == 0.25
    assert (figures.recall.k, figures.recall.n) == (2, 3)  # the undrawn one counts here
    assert (figures.false_alerts.k, figures.false_alerts.n) == (1, 1)
    assert (figures.segmented.k, figures.segmented.n) == (3, 4)
    assert (figures.dice.n, figures.dice.value) == (2, 0)  # missed: 0; the wrong class: 0
    assert figures.competition_dice.value == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)
    assert (figures.matched.k, figures.matched.n) == (1, 2)
    assert (figures.class_right.k, figures.class_right.n) == (0, 1)


@settings(max_examples=20, deadline=None)
@given(st.lists(_maps, min_size=1, max_size=4))
def test_perfect_is_one_and_nothing_is_the_empty_submission(images: list[np.ndarray]) -> None:
    perfect = segmenter_figures([record(str(i), m, m) for i, m in enumerate(images)], NAMES)
    assert perfect.competition_dice.value == 1
    for one in (perfect.dice, perfect.binary_dice, perfect.mean_iou):
        assert one.value is None or one.value == 1
    assert perfect.matched.k == perfect.matched.n == perfect.class_right.k
    records = [record(str(i), m, np.zeros_like(m)) for i, m in enumerate(images)]
    nothing = segmenter_figures(records, NAMES)
    assert nothing.competition_dice == nothing.empty_dice
    assert nothing.matched.k == 0
    assert nothing.class_right.value is None
    assert nothing.dice.value in (None, 0)


def test_nothing_drawn_gives_no_figure_and_no_error() -> None:
    figures = segmenter_figures([record("clean", CLEAN, CLEAN)], NAMES)
    assert image_dice(judged(planes_of(CLEAN), CLEAN)[0]) is None
    assert figures.dice == figures.binary_dice == mean([])
    assert figures.dice.value is figures.mean_iou.value is figures.matched.value is None
    assert figures.competition_dice.value == figures.empty_dice.value == 1
