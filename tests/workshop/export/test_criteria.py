"""The guard: pure rules, and small networks whose int8 form is good, bad and worse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.bundle import reader
from edge_agent.bundle.manifest import GATE_INPUT
from edge_agent.inspection.runtime import choose
from export.__main__ import main
from export.acceptance import criteria
from export.acceptance.criteria import Limits
from export.acceptance.scoring import Scores
from export.bundle_writer import BESIDE
from export.conversion.layer_errors import CLEAN_DB, snr_db
from export.report import document
from tests.support import spots
from tests.support.small_models import cancelling_gate, level_gate, level_segmenter, loud_gate
from workshop import model_card
from workshop.datasets import open_dataset
from workshop.model_card import ModelCard

LIMITS = Limits()


def _scores(values: list[float], defective: list[bool]) -> Scores:
    names = tuple(f"{i}.png" for i in range(len(values)))
    zeros = np.zeros(len(values))
    return Scores(names, np.array(defective), np.array(values, np.float64), zeros)


def test_scores_that_move_are_no_fault_and_scores_that_mix_are() -> None:
    bad = [True] * 4 + [False] * 4
    want = _scores([5, 6, 7, 8, 1, 2, 3, 4], bad)
    assert (
        criteria.fault("gate", want, _scores([-5, -4, -3, -2, -9, -8, -7, -6], bad), LIMITS) == ""
    )
    # One defect below two defect-free images: to catch it, both are false alarms.
    mixed = _scores([2.5, 6, 7, 8, 1, 2, 3, 4], bad)
    assert "2 more false alarms on 4" in criteria.fault("gate", want, mixed, LIMITS)
    assert "no number for 0.png" in criteria.fault(
        "gate", want, _scores([float("nan"), 6, 7, 8, 1, 2, 3, 4], bad), LIMITS
    )


def test_a_defect_for_another_is_a_fault() -> None:
    """A tenth may be missed, and both miss one: but not the same one."""
    bad = [True] * 10 + [False]
    want = _scores([0, *[5] * 9, -9], bad)
    other = _scores([*[5] * 9, 0, -9], bad)
    limits = Limits(miss_rate=0.1)
    assert criteria.fault("gate", want, want, limits) == ""
    assert criteria.fault("gate", want, other, limits) == "1 defects lost, first 9.png"


@pytest.mark.parametrize(
    ("points", "defect_free", "allowed"),
    [(1, 50, 1), (1, 100, 1), (1, 399, 3), (0, 1000, 0), (2.5, 40, 1)],
)
def test_false_alarms_are_counted_not_averaged(
    points: float, defect_free: int, allowed: int
) -> None:
    assert Limits(more_false_alarms=points).alarms(defect_free) == allowed


def test_dice_may_fall_by_the_limit() -> None:
    bad = [True, True]
    want = _scores([0.9, 0.7], bad)
    assert criteria.fault("segmenter", want, _scores([0.89, 0.69], bad), LIMITS) == ""
    assert "0.0150" in criteria.fault("segmenter", want, _scores([0.9, 0.67], bad), LIMITS)


@given(most=st.integers(0, 200), least=st.integers(0, 250))
def test_the_search_finds_what_holds_with_few_questions(most: int, least: int) -> None:
    asked: list[int] = []

    def holds(k: int) -> bool:
        asked.append(k)
        return k >= least

    found = criteria.fewest(most, holds)
    assert (found is None) == (least > most)
    if found is not None:
        assert least <= found <= max(1, 2 * least)
        assert found in asked
    assert len(asked) == len(set(asked)) <= 12


def test_a_quiet_channel_counts_as_much_as_a_loud_one() -> None:
    signal, noise = np.array([1e6, 1.0]), np.array([1.0, 1.0])
    assert snr_db(signal, noise) == pytest.approx(3.01, abs=0.01)
    assert snr_db(signal, np.zeros(2)) == CLEAN_DB
    # What says nothing cannot be spoilt.
    assert snr_db(np.array([4.0, 0.0]), np.array([0.04, 9.0])) == 20


# Real networks.

FORMS = "onnx-int8,onnx-int8-aarch64,tflite-int8"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spots.write(tmp_path_factory.mktemp("spots") / "data", 48)


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("segmenter") / "segmenter.keras"
    level_segmenter().save(path)
    return path


def _words(gate: keras.Model, segmenter: Path, data: Path, folder: Path) -> list[str]:
    gate.save(folder / "gate.keras")
    files = ["convert", "--gate", str(folder / "gate.keras"), "--segmenter", str(segmenter)]
    return [*files, "--data", str(data), "--out", str(folder / "out")]


def _report(folder: Path) -> document.ExportReport:
    return msgspec.json.decode(
        (folder / "out" / "export.json").read_bytes(), type=document.ExportReport
    )


def _outcomes(report: document.ExportReport, stage: str) -> dict[str, Any]:
    return {o.wanted: o for o in report.outcomes if o.stage == stage}


def test_what_int8_does_not_hurt_stays_int8(
    segmenter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*_words(level_gate(), segmenter, data, tmp_path), "--json"]) == 0
    report = _report(tmp_path)
    assert json.loads(capsys.readouterr().out) == json.loads(document.encode(report))
    assert all(o.became == o.wanted and not o.kept_float for o in report.outcomes)
    assert not any(v.fault or v.flips for v in report.gate)
    assert not any(v.fault for v in report.segmenter)
    assert report.gate[0].artifact == "float-keras"
    assert report.gate[0].missed.k == 0
    bundle = reader.load(tmp_path / "out")
    for artifact, judged in zip(bundle.manifest.gate.artifacts, report.gate[1:], strict=True):
        assert (artifact.label, artifact.threshold_logit) == (
            judged.artifact,
            judged.threshold_logit,
        )
    assert choose(bundle, bundle.manifest.gate, precision="onnx-int8", threads=1)
    # What lies beside the bundle is named in it.
    listed = (tmp_path / "out" / "sets.csv").read_bytes()
    assert bundle.manifest.provenance["sets.csv_sha256"] == report.sets_sha256
    assert reader.describe("sets.csv", listed).sha256 == report.sets_sha256
    assert "6 defective, 6 clean" in bundle.manifest.provenance["gate_threshold"]
    # Sets that were made are sets that can be given.
    again = tmp_path / "again.csv"
    again.write_bytes(listed)
    words = _words(level_gate(), segmenter, data, tmp_path)
    assert main([*words, "--sets", str(again), "--forms", "onnx-float32"]) == 0
    assert (tmp_path / "out" / "sets.csv").read_bytes() == listed


def test_layers_that_drown_the_signal_stay_float(
    segmenter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(loud_gate(100), segmenter, data, tmp_path)
    assert main([*words, "--forms", FORMS]) == 0
    report = _report(tmp_path)
    outcomes = _outcomes(report, "gate")
    artifacts = {a.label: a for a in reader.load(tmp_path / "out").manifest.gate.artifacts}
    for label in FORMS.split(","):
        one = outcomes[label]
        assert one.became == label
        assert "false alarms" in one.note
        assert 1 <= len(one.kept_float) <= 4
        assert any("concat" in name for name in one.kept_float)
        assert {*one.kept_float} == {x.name for x in one.layers[: len(one.kept_float)]}
        assert one.attempts[0].fault
        assert any(not a.fault for a in one.attempts)
        assert artifacts[label].kept_float == one.kept_float
        assert artifacts[label].note == one.note
    assert not any(v.fault or v.missed.k or v.false_alarms.k for v in report.gate)
    assert "gate onnx-int8: mixed: " in capsys.readouterr().out


def test_where_no_few_layers_help_the_next_form_down_is_taken(
    segmenter: Path, data: Path, tmp_path: Path
) -> None:
    words = _words(loud_gate(1e6, before=0, after=6), segmenter, data, tmp_path)
    assert main([*words, "--forms", "onnx-int8,onnx-int8-aarch64,tflite-int8"]) == 0
    outcomes = _outcomes(_report(tmp_path), "gate")
    assert [o.became for o in outcomes.values()] == ["onnx-float16"] * 2 + ["tflite-dynamic"]
    bundle = reader.load(tmp_path / "out").manifest
    # The two that became one form are one file.
    assert [a.label for a in bundle.gate.artifacts] == ["onnx-float16", "tflite-dynamic"]
    assert "instead of onnx-int8: " in bundle.gate.artifacts[0].note


def test_in_the_end_there_is_float32(segmenter: Path, data: Path, tmp_path: Path) -> None:
    words = _words(cancelling_gate(), segmenter, data, tmp_path)
    assert main([*words, "--forms", "onnx-float32,onnx-int8,tflite-float16,tflite-int8"]) == 0
    report = _report(tmp_path)
    outcomes = _outcomes(report, "gate")
    assert outcomes["onnx-int8"].became == "onnx-float32"
    tried = {a.form for a in outcomes["onnx-int8"].attempts if a.fault}
    assert tried == {"onnx-int8", "onnx-float16"}
    # The newer TFLite library refuses the int8 form; the older one beside TensorFlow may crash.
    assert any("ai-edge-litert: " in a.fault for a in outcomes["tflite-int8"].attempts)
    assert "tflite_runtime" not in sys.modules
    assert outcomes["tflite-float16"].became == "tflite-float32"
    # Weights as few as these stay float in the dynamic form.
    assert outcomes["tflite-int8"].became == "tflite-dynamic"
    labels = [a.label for a in reader.load(tmp_path / "out").manifest.gate.artifacts]
    assert labels == ["onnx-float32", "tflite-float32", "tflite-dynamic"]
    assert not any(v.fault or v.missed.k for v in report.gate)


def test_same_input_same_report(segmenter: Path, data: Path, tmp_path: Path) -> None:
    words = _words(loud_gate(100), segmenter, data, tmp_path)
    found = []
    for _ in range(2):
        # Each in its own process: tf2onnx numbers nodes as long as one lives.
        command = [sys.executable, "-m", "export", *words, "--forms", "onnx-int8,tflite-int8"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        files = sorted((tmp_path / "out").iterdir())
        # Times are those of the machine.
        found.append([p.read_bytes() for p in files if p.name not in ("speed.json", "report.html")])
    assert found[0] == found[1]


def test_seen_images_are_kept_out_of_threshold_and_test(
    segmenter: Path, data: Path, tmp_path: Path
) -> None:
    words = _words(level_gate(), segmenter, data, tmp_path)
    every = open_dataset(data)
    old = tuple(every.digest(i) for i in range(24))
    names = ("class_1", "class_2")
    found = ModelCard(stage="gate", input=GATE_INPUT, class_names=names, seen=old)
    model_card.write(tmp_path / "gate.keras", found)
    assert main([*words, "--forms", "onnx-float32"]) == 0
    rows = (tmp_path / "out" / "sets.csv").read_text().splitlines()[1:]
    parts = dict(row.split(",") for row in rows)
    assert {parts[f"{i:03d}.png"] for i in range(24)} == {"range", "search"}
    # The segmenter's card is silent, and the report says so.
    assert "not known" in _report(tmp_path).notice


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--miss-rate", "1"], "--miss-rate"),
        (["--max-dice-drop", "-1"], "--max-dice-drop"),
        (["--sets", "none.csv"], "none.csv"),
        (["--max-images", "2"], "--max-images"),
        (["--classes", "one"], "--classes"),
    ],
)
def test_mistakes_are_one_line(
    extra: list[str],
    named: str,
    segmenter: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*_words(level_gate(), segmenter, data, tmp_path), *extra]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("edge-export: ")]
    assert named in line
    assert not (tmp_path / "out").exists()


def test_without_labels_it_says_that_nobody_guards(
    segmenter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(level_gate(), segmenter, data, tmp_path)
    words[words.index("--data")] = "--samples"
    (tmp_path / "out").mkdir()
    for name in BESIDE:
        (tmp_path / "out" / name).write_text("of an export before")
    assert main([*words, "--forms", "onnx-float32", "--max-samples", "4"]) == 0
    assert "No guard" in capsys.readouterr().out
    # No report is left that is another bundle's.
    assert not any((tmp_path / "out" / name).exists() for name in BESIDE)
    raw = (tmp_path / "out" / "bundle.json").read_text()
    assert "kept_float" not in raw
    assert '"note"' not in raw
    assert main([*words, "--sets", "x.csv"]) == 2
