"""Choosing the gate's threshold, and writing it into a bundle."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.__main__ import main
from edge_agent.bundle import reader
from edge_agent.bundle.manifest import Tiles
from edge_agent.image_files import read_image
from edge_agent.inspection.gate import SEED_THRESHOLD_LOGIT, Gate
from edge_agent.inspection.runtime import ChosenArtifact, open_runtime
from workshop.datasets.labelled_frames import read
from workshop.thresholds import choose

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
    manifest = reader.load(bundle).manifest
    assert [r["artifact"] for r in rows] == [a.label for a in manifest.gate.artifacts]
    for row, artifact in zip(rows, manifest.gate.artifacts, strict=True):
        assert artifact.threshold_logit == pytest.approx(row["threshold_logit"], abs=1e-5)
        assert row["missed"] == 0
        assert row["defective"] > 0
        assert row["defective"] + row["clean"] == 20


@pytest.mark.parametrize("tiled", [False, True])
def test_frames_are_scored_as_the_line_scores_them(
    tiled: bool, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The counts that are reported are what the agent's own gate decides afterwards."""
    from edge_agent.__main__ import main as agent

    if tiled:
        _cut_into_tiles(bundle)
    data = tmp_path / "data"
    assert agent(["simulate", "--seed", "5", "--frames", "20", "--out", str(data)]) == 0
    capsys.readouterr()
    words = ["gate", "--bundle", str(bundle), "--data", str(data), "--miss-rate", "0.2", "--json"]
    assert main(words) == 0
    row = json.loads(capsys.readouterr().out)[0]
    after = reader.load(bundle)
    stage = after.manifest.gate
    gate = Gate(
        stage.input,
        ChosenArtifact(stage.artifacts[0], open_runtime(after, stage.artifacts[0], 1), 0, ()),
    )
    verdicts = [(f.class_id > 0, gate.judge(read_image(f.image))) for f in read(data)]
    assert {len(v.suspect_tiles) > 1 for _, v in verdicts} == ({False, True} if tiled else {False})
    assert row["missed"] == sum(defective and not v.suspect for defective, v in verdicts) > 0
    assert row["clean_passed_on"] == sum(not bad and v.suspect for bad, v in verdicts)


def _cut_into_tiles(bundle: Path) -> None:
    path = bundle / "bundle.json"
    manifest = reader.parse_manifest(path.read_bytes(), path)
    tiles = Tiles(height_px=256, width_px=256, overlap_px=32)
    spec = msgspec.structs.replace(manifest.gate.input, tiles=tiles)
    gate = msgspec.structs.replace(manifest.gate, input=spec)
    path.write_bytes(reader.encode_manifest(msgspec.structs.replace(manifest, gate=gate)))


@pytest.mark.parametrize("tiled", [False, True])
def test_a_frame_without_a_score_is_named_and_no_threshold_is_set(
    tiled: bool,
    tmp_path: Path,
    write_bundle: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = write_bundle(tmp_path / "bundle", trap="nan")
    image = np.full((256, 600), 100, np.uint8)
    if tiled:
        _cut_into_tiles(bundle)
        image[:, :256] = 255  # one tile of three
    else:
        image[:] = 255
    (tmp_path / "data" / "images").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data" / "images" / "a.png"), image)
    (tmp_path / "data" / "labels.csv").write_text("file,class_id\na.png,1\n")
    before = (bundle / "bundle.json").read_bytes()
    assert main(["gate", "--bundle", str(bundle), "--data", str(tmp_path / "data")]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "edge-calibrate: " in x]
    assert "a.png" in line
    assert "gate-float32.onnx returned nan" in line
    assert (bundle / "bundle.json").read_bytes() == before


def test_a_frame_of_too_many_tiles_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _cut_into_tiles(bundle)
    (tmp_path / "data" / "images").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data" / "images" / "a.png"), np.zeros((8000, 8000), np.uint8))
    (tmp_path / "data" / "labels.csv").write_text("file,class_id\na.png,1\n")
    assert main(["gate", "--bundle", str(bundle), "--data", str(tmp_path / "data")]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "edge-calibrate: " in x]
    assert "a.png" in line
    assert "1296 tiles" in line


def test_without_labels_the_seeds_threshold(bundle: Path) -> None:
    assert main(["gate", "--bundle", str(bundle)]) == 0
    for artifact in reader.load(bundle).manifest.gate.artifacts:
        assert artifact.threshold_logit == pytest.approx(SEED_THRESHOLD_LOGIT, abs=1e-5)
        assert 1 / (1 + math.exp(-artifact.threshold_logit)) == pytest.approx(0.01, rel=1e-4)


def test_a_signature_is_removed_and_asked_for_again(
    bundle: Path, sign_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["gate", "--bundle", str(bundle), "--json"]
    assert main(words) == 0
    assert capsys.readouterr().err == "", "there was none"
    sign_bundle(bundle)
    assert main(["gate", "--bundle", str(bundle), "--data", "no/such"]) == 2
    assert (bundle / "bundle.sig").exists(), "nothing has changed"
    capsys.readouterr()
    assert main(words) == 0
    assert not (bundle / "bundle.sig").exists()
    out, err = capsys.readouterr()
    assert json.loads(out) == []
    assert f"sign it again: edge-export sign {bundle} --key KEY" in err
    assert err.count("\n") == 1


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
    assert len(lines) == 1
    assert named in lines[0]
    assert (bundle / "bundle.json").read_bytes() == before
