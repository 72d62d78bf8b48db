"""The figures of edge-bench accuracy: intervals, average precision, judging."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy
from edge_agent.bundle import reader


def test_exact_interval_against_the_tables() -> None:
    # 0 of 100: the two-sided 95 % Clopper-Pearson upper bound is 1 - 0.025 ** (1 / 100).
    none = accuracy.share(0, 100)
    assert none.low == 0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-9)
    half = accuracy.share(5, 10)
    assert (half.low, half.high) == (
        pytest.approx(0.1871, abs=1e-4),
        pytest.approx(0.8129, abs=1e-4),
    )
    assert np.isnan(accuracy.share(0, 0).value)


def test_average_precision_reference() -> None:
    truth = np.array([True, False, True, False])
    assert accuracy.average_precision(truth, np.array([4.0, 3, 2, 1])) == pytest.approx(5 / 6)
    # Ties go against us: a constant score puts the positives last.
    assert accuracy.average_precision(truth, np.zeros(4)) == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_bootstrap_interval_holds_the_mean() -> None:
    one = accuracy.mean([0.2, 0.4, 0.9, 0.7])
    assert one.n == 4
    assert one.value == pytest.approx(0.55)
    assert one.low < one.value < one.high


def test_cases_cover_strips_of_consecutive_seeds() -> None:
    first = next(iter(accuracy.cases(9000, 1)))
    last = list(accuracy.cases(9000, accuracy.FRAMES_PER_STRIP + 1))[-1]
    assert not np.array_equal(first.image, last.image)


def test_test_seeds_are_no_training_seeds() -> None:
    from workshop.datasets.simulated import TRAIN_SEEDS, VALIDATION_SEEDS

    for other in (TRAIN_SEEDS, VALIDATION_SEEDS):
        assert not set(accuracy.TEST_SEEDS) & set(other)


def test_judging_accounts_for_every_frame(tiny_bundle: Path) -> None:
    bundle = reader.load(tiny_bundle)
    label = bundle.manifest.gate.artifacts[0].label
    results, baseline = accuracy.judge(
        bundle, [label], first_seed=9000, frames=24, threads=1, progress=lambda: None
    )
    (result,) = results
    assert result.recall.n + result.false_alerts.n + result.slivers == 24
    assert result.dice.n == result.recall.n
    assert 0 < baseline.average_precision <= 1
