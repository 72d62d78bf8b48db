"""The reference models through the whole product: export, calibrate, inspect, judge, demo."""

import json
from pathlib import Path

import jsonschema
import keras
import pytest

from benchmarks import accuracy, demo
from edge_agent.bundle import reader
from edge_agent.messages import events
from edge_agent.messages import schema as messages_schema
from tests.support.paths import ROOT

REFERENCE = ROOT / "training" / "reference"
LABELS = ("onnx-float32", "onnx-int8", "tflite-float32", "tflite-int8")

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo folder with the bundle made by the commands of the demo."""
    folder = tmp_path_factory.mktemp("demo")
    demo.make_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> tuple[dict[str, accuracy.Result], accuracy.Baseline]:
    rows, baseline = accuracy.judge(
        reader.load(out / "bundle"),
        LABELS,
        first_seed=accuracy.TEST_SEEDS[0],
        frames=500,
        threads=2,
        progress=lambda: None,
    )
    return {row.artifact: row for row in rows}, baseline


def test_models_are_small_and_their_making_is_written_down() -> None:
    files = sorted(REFERENCE.glob("*.keras"))
    assert [f.stem for f in files] == ["gate", "segmenter"]
    assert sum(f.stat().st_size for f in files) < 8_000_000
    for file in files:
        figures = json.loads(file.with_suffix(".json").read_text())
        assert figures["recipe"]["stage"] == file.stem
        assert keras.saving.load_model(file).count_params() == figures["parameters"]


@pytest.mark.parametrize("label", LABELS)
def test_the_line_on_500_frames_of_strips_nothing_was_chosen_on(
    results: tuple[dict[str, accuracy.Result], accuracy.Baseline], label: str
) -> None:
    result = results[0][label]
    assert result.recall.n >= 90, "too few defective frames to say anything"
    assert result.recall.value >= 0.98
    assert result.false_alerts.value <= 0.03
    assert result.class_right.value >= 0.90
    assert result.dice.value >= 0.75


def test_the_strip_is_no_toy(
    results: tuple[dict[str, accuracy.Result], accuracy.Baseline],
) -> None:
    assert results[1].average_precision < 0.7


def test_demo_accounts_for_everything_and_leaves_pictures(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(["--seconds", "6", "--out", str(out)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["frames"] > 20
    assert summary["events_received"] == summary["events_published"] > 0
    judged = summary["alerted"] + summary["missed"]
    assert judged == summary["defective_frames"]
    assert 0 < summary["latency_p50_ms"] <= summary["latency_p99_ms"]
    assert (out / "contact_sheet.jpg").stat().st_size > 10_000
    assert len(list((out / "defects").glob("*.jpg"))) == min(40, summary["alerted"])
    schema = jsonschema.Draft202012Validator(messages_schema.schemas()["event"])
    received = [json.loads(text) for text in (out / "received.jsonl").read_text().splitlines()]
    found = [message for message in received if message["type"] == events.DEFECT_TYPE]
    assert len(found) == summary["events_received"]
    for message in found:
        schema.validate(message)
