"""The report's page: what is in it, from a real export whose int8 forms are bad on purpose."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from export.__main__ import main
from export.acceptance.fallback import Attempt, FormOutcome
from export.conversion.layer_errors import Layer
from export.float_comparison import ComparisonRow
from export.report import document, page, pictures, speed
from export.report.plots import draw
from tests.support import spots
from tests.support.small_models import loud_gate, loud_segmenter
from workshop.report.page import svg_url


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Limits so wide that forms pass which lose much."""
    folder = tmp_path_factory.mktemp("page")
    data = spots.write(folder / "data", 48)
    loud_gate(100).save(folder / "gate.keras")
    loud_segmenter(300).save(folder / "segmenter.keras")
    words = [f"--{s}={folder / s}.keras" for s in ("gate", "segmenter")]
    words += [
        "--data",
        str(data),
        "--out",
        str(folder / "out"),
        "--forms",
        "onnx-float32,onnx-int8",
    ]
    assert main([*words, "--max-more-false-alarms", "100", "--max-dice-drop", "1"]) == 0
    return folder / "out"


@pytest.fixture
def report(out: Path) -> document.ExportReport:
    return msgspec.json.decode((out / "export.json").read_bytes(), type=document.ExportReport)


@pytest.fixture
def text(out: Path) -> str:
    return (out / "report.html").read_text("utf-8")


def test_every_artifact_has_its_size_its_time_and_its_differences(
    out: Path, report: document.ExportReport, text: str
) -> None:
    times = msgspec.json.decode((out / "speed.json").read_bytes(), type=speed.Speed)
    found = {(t.stage, t.artifact): t for t in times.timings}
    for stage, verdicts in (("gate", report.gate), ("segmenter", report.segmenter)):
        assert verdicts[0].size_bytes is None
        for one in verdicts[1:]:
            (name,) = [n for n in _files(out, stage) if one.artifact.split("-")[1] in n]
            assert one.size_bytes == (out / name).stat().st_size
            assert f"{one.size_bytes / 1000:,.0f} kB" in text
            timing = found[stage, one.artifact]
            assert 0 < timing.p50_ms <= timing.p95_ms
            assert f"{timing.p50_ms:.2f} ms" in text
            assert f"{one.difference.largest:.4f}" in text
            assert f"{one.difference.p99:.4f}" in text


def _files(out: Path, stage: str) -> list[str]:
    return [p.name for p in out.iterdir() if p.name.startswith(stage)]


def test_flipped_decisions_are_shown_with_their_pictures(
    report: document.ExportReport, text: str
) -> None:
    int8 = report.gate[2]
    assert int8.artifact == "onnx-int8"
    assert len(int8.flips) >= 3
    section = text[text.index('id="flips"') : text.index('id="masks"')]
    for flip in int8.flips:
        assert (flip.float_logit < report.gate[0].threshold_logit) != flip.float_suspect
        assert (flip.logit < int8.threshold_logit) == flip.float_suspect
        assert f'alt="{flip.name}, image"' in section
        assert f"Logit {flip.logit:+.3f}" in section
    assert section.count("data:image/jpeg") >= len(int8.flips)


def test_the_mask_that_lost_most_is_shown_beside_the_float_one(
    report: document.ExportReport, text: str
) -> None:
    int8 = report.segmenter[2]
    assert int8.worst is not None
    assert int8.worst.dice < int8.worst.float_dice
    section = text[text.index('id="masks"') : text.index('id="layers"')]
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', section)
    shown = {alt.partition(", ")[2]: _pixels(data) for data, alt in found}
    assert list(shown) == ["image", "drawn", "float Keras", "onnx-int8"]
    # The float network finds what is drawn; int8 has lost it, or finds what is not there.
    assert np.abs(shown["drawn"] - shown["float Keras"]).max() < 60
    assert np.abs(shown["onnx-int8"] - shown["float Keras"]).max() > 60


def _pixels(data: str) -> np.ndarray:
    raw = np.frombuffer(base64.b64decode(data), np.uint8)
    return cv2.imdecode(raw, cv2.IMREAD_COLOR).astype(int)


def test_layers_are_plotted_for_each_int8_form(report: document.ExportReport, text: str) -> None:
    int8 = [o for o in report.outcomes if o.wanted == "onnx-int8"]
    assert len(int8) == 2
    assert all(o.layers for o in int8)
    section = text[text.index('id="layers"') :]
    for one in int8:
        plotted = draw(one)
        assert svg_url(plotted.light) in section
        assert svg_url(plotted.dark) in section
        assert one.layers[0].name[-20:].encode() in plotted.light


def test_nothing_is_fetched_and_nothing_runs(text: str) -> None:
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)


HOSTILE = "<img src=x onerror=alert(1)>"


def test_what_comes_from_outside_is_escaped_and_reasons_are_told(
    report: document.ExportReport,
) -> None:
    layer = Layer(name=HOSTILE, kind="Conv", own_db=3.0, total_db=None)
    outcome = FormOutcome(
        stage="gate",
        wanted="onnx-int8",
        became="onnx-int8",
        kept_float=(HOSTILE,),
        note=f"1 layers stay float; all in int8: {HOSTILE}",
        attempts=(Attempt(form="onnx-int8", kept_float=0, fault=HOSTILE),),
        layers=(layer, msgspec.structs.replace(layer, name="quiet", own_db=60.0, total_db=40.0)),
    )
    changed = msgspec.structs.replace(report, outcomes=(outcome,))
    rows = [ComparisonRow("gate", "onnx-int8", 10, 1, 2, 0, 0, 1, 5, "old 1", HOSTILE)]
    card = pictures.ImageCard(HOSTILE, (HOSTILE,), False, ())
    text = page.html(changed, speed.of(rows), rows, (HOSTILE,), (card,), ())
    assert HOSTILE not in text
    assert text.count("&lt;img src=x") >= 7
    assert "cannot run gate onnx-int8" in text
    assert "stay float; all in int8" in text
