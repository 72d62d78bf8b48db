"""Clean or suspect."""

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

from edge_agent.bundle import manifest as bundles
from edge_agent.bundle import reader
from edge_agent.bundle.manifest import Tiles
from edge_agent.inspection.gate import SEED_THRESHOLD_LOGIT, Gate, GateDecision, frame_score
from edge_agent.inspection.preprocess import tile_boxes
from edge_agent.inspection.runtime import ChosenArtifact, choose


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
    assert GateDecision(score, -1.5).suspect is suspect


@given(score=st.floats())
def test_against_a_threshold_that_is_not_a_number_all_is_suspect(score: float) -> None:
    assert GateDecision(score, math.nan).suspect


@given(score=st.floats(allow_nan=False), threshold=st.floats(allow_nan=False))
def test_a_clean_score_is_below_its_threshold(score: float, threshold: float) -> None:
    assert GateDecision(score, threshold).suspect == (score >= threshold)


def test_the_seeds_threshold_is_a_probability_of_one_hundredth() -> None:
    assert 1 / (1 + math.exp(-SEED_THRESHOLD_LOGIT)) == pytest.approx(0.01)


def _choice(folder: Path) -> tuple[bundles.Stage, ChosenArtifact]:
    bundle = reader.load(folder)
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


@given(logits=st.lists(st.floats(-100, 100), min_size=1, max_size=9))
def test_a_frame_is_as_bad_as_its_worst_tile(logits: list[float]) -> None:
    assert frame_score(logits) == sorted(logits)[-1]


@given(
    logits=st.lists(st.floats(-100, 100), min_size=1, max_size=9),
    broken=st.sampled_from((math.nan, math.inf, -math.inf)),
    at=st.integers(0, 9),
)
def test_one_tile_without_a_number_is_enough(logits: list[float], broken: float, at: int) -> None:
    score = frame_score([*logits[:at], broken, *logits[at:]])
    assert math.isnan(score)
    assert GateDecision(score, 0).suspect


def _tiled(folder: Path) -> tuple[Gate, Gate, bundles.Stage]:
    """A gate on tiles of 256x256, the same for a whole frame, and the first one's stage."""
    stage, choice = _choice(folder)
    spec = msgspec.structs.replace(
        stage.input, tiles=Tiles(height_px=256, width_px=256, overlap_px=32)
    )
    tiled = msgspec.structs.replace(stage, input=spec)
    return Gate(spec, choice), Gate(stage.input, choice), tiled


def test_a_gate_on_tiles_says_which_are_suspect(tiny_bundle: Path) -> None:
    gate, whole, stage = _tiled(tiny_bundle)
    image = np.full((256, 1600), 100, np.uint8)
    boxes = tile_boxes((256, 1600), stage.input)
    assert gate.judge(image).suspect_tiles == ()
    assert not gate.judge(image).suspect
    image[100:110, 900:930] = 255  # between 896 and 928 tiles 3 and 4 overlap
    verdict = gate.judge(image)
    assert verdict.suspect
    assert verdict.suspect_tiles == boxes[3:5]
    assert verdict.score_logit == max(whole.judge(image[b.slices]).score_logit for b in boxes)


def test_without_tiles_the_whole_frame_is_suspect(tiny_bundle: Path) -> None:
    _, whole, _ = _tiled(tiny_bundle)
    image = np.full((256, 800), 100, np.uint8)
    assert whole.judge(image).suspect_tiles == ()
    image[100:140, 300:360] = 255
    (box,) = whole.judge(image).suspect_tiles
    assert (box.first_line, box.first_pixel, box.lines, box.pixels) == (0, 0, 256, 800)


def test_a_tile_that_gives_no_number_makes_the_frame_suspect(
    tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    gate, _, stage = _tiled(write_bundle(tmp_path / "bundle", trap="nan"))
    image = np.full((256, 1600), 100, np.uint8)
    boxes = tile_boxes((256, 1600), stage.input)
    image[boxes[2].slices] = 255
    verdict = gate.judge(image)
    assert math.isnan(verdict.score_logit)
    assert verdict.suspect
    assert boxes[2] in verdict.suspect_tiles
