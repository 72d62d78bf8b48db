"""edge-bench latency: a row an artifact, with what it was measured on."""

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main


def test_report_has_every_artifact_and_the_machine(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "latency.json"
    words = ["--samples", "5", "--warm-up", "1", "--threads", "1", "--json", str(out)]
    assert main(["latency", str(tiny_bundle), *words]) == 0
    report = json.loads(out.read_text())
    manifest = json.loads((tiny_bundle / "bundle.json").read_text())
    expected = {
        (stage, f"{a['format']}-{a['precision']}")
        for stage in ("gate", "segmenter")
        for a in manifest[stage]["artifacts"]
    }
    assert {(t["stage"], t["artifact"]) for t in report["timings"]} == expected
    for timing in report["timings"]:
        assert 0 < timing["p50_ms"] <= timing["p95_ms"] <= timing["p99_ms"]
        assert timing["samples"] == 5
    assert report["threads"] == 1
    assert report["warm_up"] == 1
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["libraries"]["onnxruntime"]
    assert "p50 ms" in capsys.readouterr().out


def test_a_provider_is_one_more_row_or_is_said_to_be_none(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "latency.json"
    words = ["--samples", "2", "--warm-up", "0", "--threads", "1", "--json", str(out)]
    for name in ("CPUExecutionProvider", "openvino", "NonesuchExecutionProvider"):
        words += ["--provider", name]
    assert main(["latency", str(tiny_bundle), *words]) == 0
    report = json.loads(out.read_text())
    timed = {t["artifact"] for t in report["timings"]}
    not_timed = {n["artifact"]: n["reason"] for n in report["not_timed"]}
    assert "onnx-float32" in timed
    # Which of the two is the machine's to say.
    found = importlib.util.find_spec("openvino") is not None
    assert ("onnx-float32 openvino" in timed) == found
    assert ("onnx-float32 openvino" in not_timed) == (not found)
    assert "not in this onnxruntime" in not_timed["onnx-float32 NonesuchExecutionProvider"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["latency", "/nowhere"], "/nowhere"),
        (["latency", "{bundle}", "--samples", "0"], "--samples"),
        (["accuracy", "{bundle}", "--simulated", "--frames", "0"], "--frames"),
        (["accuracy", "{bundle}", "--simulated", "--artifacts", "none"], "none"),
        (["latency", "{bundle}", "--samples", "1", "--json", "/nowhere/x.json"], "--json"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    words: list[str], named: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([w.format(bundle=tiny_bundle) for w in words]) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("edge-bench: ")]
    assert len(lines) == 1
    assert named in lines[0]
