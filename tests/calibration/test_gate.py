"""Choosing the gate's threshold, and writing it into a bundle."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.__main__ import main
from calibration.gate import choose
from edge_agent import bundle as bundles
from edge_agent.gate import SEED_THRESHOLD_LOGIT

_scores = st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=1, max_size=60).filter(
    lambda rows: any(d for _, d in rows)
)


@given(rows=_scores, miss_rate=st.floats(0, 0.5))
def test_never_misses_more_than_allowed_and_passes_no_more_than_needed(
    rows: list[tuple[float, bool]], miss_rate: float
) -> None:
    scores = np.array([s for s, _ in rows])
    defective = np.array([d for _, d in rows])
    threshold = choose(scores, defective, miss_rate)
    missed = int((scores[defective] < threshold).sum())
    assert missed <= miss_rate * defective.sum() + 1e-6
    # Nothing lies between the threshold and the lowest score that must be caught.
    lowest = np.sort(scores[defective])[math.floor(miss_rate * defective.sum() + 1e-9)]
    between = (scores >= threshold) & (scores < lowest)
    assert not between.any() or np.min(lowest - scores[between]) < 1e-9


def test_margin_is_half_the_distance_and_at_most_one() -> None:
    defective = np.array([False, True, True])
    assert choose(np.array([1.0, 2.0, 5.0]), defective, 0) == 1.5
    assert choose(np.array([-9.0, 2.0, 5.0]), defective, 0) == 1.0


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_thresholds_are_set_per_artifact_and_the_bundle_still_loads(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_agent.__main__ import main as agent

    data = tmp_path / "data"
    assert agent(["simulate", "--seed", "3", "--frames", "20", "--out", str(data)]) == 0
    capsys.readouterr()
    words = ["gate", "--bundle", str(bundle), "--data", str(data), "--miss-rate", "0", "--json"]
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    manifest = bundles.load(bundle).manifest
    assert [r["artifact"] for r in rows] == [a.label for a in manifest.gate.artifacts]
    for row, artifact in zip(rows, manifest.gate.artifacts, strict=True):
        assert artifact.threshold_logit == pytest.approx(row["threshold_logit"], abs=1e-5)
        assert row["missed"] == 0 and row["defective"] > 0
        assert row["defective"] + row["clean"] == 20


def test_without_labels_the_seeds_threshold(bundle: Path) -> None:
    assert main(["gate", "--bundle", str(bundle)]) == 0
    for artifact in bundles.load(bundle).manifest.gate.artifacts:
        assert artifact.threshold_logit == pytest.approx(SEED_THRESHOLD_LOGIT, abs=1e-5)
        assert 1 / (1 + math.exp(-artifact.threshold_logit)) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (None, "labels.csv"),
        ("file,class_id\n", "no rows"),
        ("file,class_id\nmissing.png,1\n", "missing.png"),
        ("file,class_id\na.png,one\n", "class_id"),
        ("name\nx\n", "class_id"),
        ("file,class_id,defect_pixels\na.png,1,many\n", "defect_pixels"),
        ("file,class_id\na.png,0\n", "no defective frames"),
        ("file,class_id\na.png,1\n", "not a picture"),
    ],
)
def test_bad_data_is_one_line_and_exit_2(
    table: str | None,
    named: str,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "a.png").write_text("no picture")
    if table is not None:
        (data / "labels.csv").write_text(table)
    before = (bundle / "bundle.json").read_bytes()
    assert main(["gate", "--bundle", str(bundle), "--data", str(data)]) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if "edge-calibrate: " in x]
    assert len(lines) == 1 and named in lines[0]
    assert (bundle / "bundle.json").read_bytes() == before
