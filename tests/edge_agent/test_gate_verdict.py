"""Clean or suspect. (tests/calibration has the name test_gate.)"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import bundle as bundles
from edge_agent.gate import SEED_THRESHOLD_LOGIT, Gate, Verdict
from edge_agent.runtime import Choice, choose


@pytest.mark.parametrize(
    ("score", "suspect"),
    [
        (-2.0, False),
        (-1.5, True),  # at the threshold
        (-1.0, True),
        (math.nextafter(-1.5, -math.inf), False),
        (math.inf, True),
        (-math.inf, False),
        (math.nan, True),
    ],
)
def test_suspect_at_or_above_the_threshold_or_not_a_number(score: float, suspect: bool) -> None:
    assert Verdict(score, -1.5).suspect is suspect


@given(score=st.floats())
def test_against_a_threshold_that_is_not_a_number_all_is_suspect(score: float) -> None:
    assert Verdict(score, math.nan).suspect


@given(score=st.floats(allow_nan=False), threshold=st.floats(allow_nan=False))
def test_a_clean_score_is_below_its_threshold(score: float, threshold: float) -> None:
    assert Verdict(score, threshold).suspect == (score >= threshold)


def test_the_seeds_threshold_is_a_probability_of_one_hundredth() -> None:
    assert 1 / (1 + math.exp(-SEED_THRESHOLD_LOGIT)) == pytest.approx(0.01)


def _choice(folder: Path) -> tuple[bundles.Stage, Choice]:
    bundle = bundles.load(folder)
    stage = bundle.manifest.gate
    return stage, choose(bundle, stage, precision="float32", threads=1)


def test_a_real_network_judges_by_its_artifacts_threshold(tiny_bundle: Path) -> None:
    stage, choice = _choice(tiny_bundle)
    gate = Gate(stage.input, choice)
    clean = np.full((256, 800), 100, np.uint8)
    marked = clean.copy()
    marked[100:140, 300:360] = 255
    assert choice.artifact.threshold_logit is not None
    for image, suspect in ((clean, False), (marked, True)):
        verdict = gate.judge(image)
        assert verdict.threshold_logit == choice.artifact.threshold_logit
        assert math.isfinite(verdict.score_logit)
        assert verdict.suspect is suspect


def test_without_a_threshold_of_its_own_it_is_the_seeds(tiny_bundle: Path) -> None:
    stage, choice = _choice(tiny_bundle)
    bare = msgspec.structs.replace(choice.artifact, threshold_logit=None)
    gate = Gate(stage.input, dataclasses.replace(choice, artifact=bare))
    verdict = gate.judge(np.full((256, 800), 100, np.uint8))
    assert verdict.threshold_logit == SEED_THRESHOLD_LOGIT


def test_a_network_that_gives_no_number_makes_the_frame_suspect(
    tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    stage, choice = _choice(write_bundle(tmp_path / "bundle", trap="nan"))
    verdict = Gate(stage.input, choice).judge(np.full((256, 800), 255, np.uint8))
    assert math.isnan(verdict.score_logit)
    assert verdict.suspect
