"""The figures of edge-bench accuracy: average precision, judging."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy
from edge_agent.bundle import reader


def test_average_precision_reference() -> None:
    truth = np.array([True, False, True, False])
    assert accuracy.average_precision(truth, np.array([4.0, 3, 2, 1])) == pytest.approx(5 / 6)
    # Ties go against us: a constant score puts the positives last.
    assert accuracy.average_precision(truth, np.zeros(4)) == pytest.approx((1 / 3 + 2 / 4) / 2)


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
