"""The gate's figures and all intervals, against scikit-learn, scipy and slow loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from edge_agent.inspection.gate import GateDecision
from workshop.gate_metrics import (
    MISS_RATES,
    curve_figures,
    gate_figures,
    logit,
    misses_allowed,
    probability,
)
from workshop.statistics import estimate, mean, share

# Few levels, so that there are ties.
_scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)
# A threshold is given as a probability; these come back as logits to the last bit, so that a
# score can be equal to one.
_LEVELS = [v / 2 for v in range(-6, 7) if logit(probability(v / 2)) == v / 2]


@settings(max_examples=25, deadline=None)
@given(_scores, _scores)
def test_ranking_is_scikit_learns_and_overkill_a_slow_loops(
    clean: list[float], defective: list[float]
) -> None:
    truth = [0] * len(clean) + [1] * len(defective)
    auroc = metrics.roc_auc_score(truth, clean + defective)
    area = metrics.average_precision_score(truth, clean + defective)
    overkill = []
    for rate in MISS_RATES:
        allowed = min(int(rate * len(defective) + 1e-9), len(defective) - 1)
        fine = [t for t in range(-4, 5) if sum(s < t for s in defective) <= allowed]
        overkill.append(sum(s >= max(fine) for s in clean) / len(clean))
    figures = gate_figures(clean, defective, ())
    assert figures.auroc.value == pytest.approx(auroc)
    assert figures.average_precision.value == pytest.approx(area)
    assert [o.overkill.value for o in figures.overkill] == pytest.approx(overkill)
    # What the bootstrap computes for each resample is the same, from counts per level.
    levels = range(3, -4, -1)
    counts = [np.array([[s.count(v) for v in levels]]) for s in (defective, clean)]
    assert curve_figures(*counts)[:, 0] == pytest.approx([auroc, area, *overkill])


@settings(max_examples=25, deadline=None)
@given(_scores, _scores, st.sampled_from(_LEVELS))
def test_at_a_threshold_it_is_scikit_learns_report(
    clean: list[float], defective: list[float], level: float
) -> None:
    threshold = probability(level)
    (at,) = gate_figures(clean, defective, (threshold,)).at
    truth = [0] * len(clean) + [1] * len(defective)
    guess = [int(GateDecision(s, level).suspect) for s in clean + defective]
    matrix = metrics.confusion_matrix(truth, guess, labels=[0, 1])
    c = at.confusion
    assert [[c.clean_stopped, c.clean_passed_on], [c.defective_stopped, c.defective_passed_on]] == (
        matrix.tolist()
    )
    assert at.accuracy.value == pytest.approx(metrics.accuracy_score(truth, guess))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, guess, labels=[0, 1], zero_division=0
    )
    for k, side in enumerate((at.clean, at.defect)):
        assert side.recall.value == pytest.approx(recall[k])
        assert (side.precision.value or 0) == pytest.approx(precision[k])
        assert (side.f1.value or 0) == pytest.approx(f1[k])


def test_equal_to_the_threshold_is_passed_on() -> None:
    (at,) = gate_figures([0.0, -1.0], [0.0, -1.0], (0.5,)).at
    assert (at.confusion.clean_passed_on, at.confusion.defective_passed_on) == (1, 1)


def test_intervals_of_the_ranking_are_a_stratified_bootstraps() -> None:
    rng = np.random.default_rng(5)
    clean, defective = rng.normal(0, 1, 60), rng.normal(1.2, 1, 25)
    figures = gate_figures(clean.tolist(), defective.tolist(), (0.5,))
    truth = np.r_[np.zeros(60), np.ones(25)]
    auroc, area, f1 = [], [], []
    for _ in range(1_000):
        scores = np.r_[rng.choice(clean, 60), rng.choice(defective, 25)]
        auroc.append(metrics.roc_auc_score(truth, scores))
        area.append(metrics.average_precision_score(truth, scores))
        f1.append(metrics.f1_score(truth, scores >= 0))
    for ours, resampled in (
        (figures.auroc, auroc),
        (figures.average_precision, area),
        (figures.at[0].defect.f1, f1),
    ):
        assert [ours.low, ours.high] == pytest.approx(
            np.percentile(resampled, (2.5, 97.5)), abs=0.02
        )


def test_the_same_scores_give_the_same_intervals() -> None:
    scores = ([0.1, -2.0, 0.7], [1.0, 2.0, 0.3])
    assert gate_figures(*scores, (0.01, 0.5)) == gate_figures(*scores, (0.01, 0.5))


@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], []), ([], [])])
def test_one_side_alone_ranks_nothing(sides: tuple[list[float], list[float]]) -> None:
    figures = gate_figures(*sides, (0.5,))
    assert figures.auroc.value is figures.average_precision.value is None
    assert figures.overkill == ()
    assert figures.at[0].accuracy.n == sum(map(len, sides))


def test_misses_allowed_are_whole_and_leave_one_to_find() -> None:
    assert [misses_allowed(0.01, n) for n in (1, 99, 100, 299, 300)] == [0, 0, 1, 2, 3]
    assert all(misses_allowed(0.05, 20 * k) == k for k in range(1, 500))
    assert misses_allowed(0.0, 10_000) == 0
    assert misses_allowed(0.99, 3) == 2


@settings(deadline=None)
@given(st.floats(1e-6, 1 - 1e-6))
def test_probability_undoes_logit(p: float) -> None:
    assert probability(logit(p)) == pytest.approx(p)


def test_shares_are_exact() -> None:
    # "Rule of three" made exact: no miss in n, two-sided 95 %: 1 - 0.025 ** (1 / n).
    none = share(0, 59)
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 59)))
    # Clopper and Pearson (Biometrika 26, 1934): 3 of 10.
    some = share(3, 10)
    assert (some.low, some.high) == (
        pytest.approx(0.0667, abs=1e-4),
        pytest.approx(0.6525, abs=1e-4),
    )
    assert share(0, 0).value is None


def test_a_means_interval_is_the_normal_one_for_many_images() -> None:
    values = np.random.default_rng(1).normal(3, 2, 4_000)
    one = mean(values)
    half = 1.96 * values.std() / math.sqrt(4_000)
    assert one.value == pytest.approx(values.mean())
    assert [one.low, one.high] == pytest.approx([one.value - half, one.value + half], abs=half / 8)


def test_a_figure_that_some_resamples_lack_keeps_its_interval() -> None:
    rows = np.array([[1.0, 2.0], [0.0, 0.0]])  # a resample of the second alone has no ratio
    with np.errstate(invalid="ignore"):
        one = estimate(rows, lambda s: s[:, 0] / s[:, 1])
    assert (one.n, one.value, one.low, one.high) == (2, 0.5, 0.5, 0.5)
