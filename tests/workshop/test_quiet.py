"""edge-export, edge-train, edge-bench, edge-calibrate as processes: each line they print is ours.

They run on tiny networks, with all the libraries that a full size takes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Whatever a user's shell sets must not be what keeps the libraries quiet.
_LOUD = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}

_MODELS = """\
import sys
sys.path.insert(0, {folder!r})
from tests.support.small_models import small_gate, small_segmenter
small_gate().save("gate.keras")
small_segmenter().save("segmenter.keras")
"""
_NUMBER = r"-?\d+(\.\d+)?"
_FIGURES = rf"( +[a-z_]+ {_NUMBER})+"
_WHAT = r"(gate|segmenter) (onnx-(float32|int8)|tflite-(float32|int8)|compared)"


def _run(module: str, *words: str, cwd: Path) -> tuple[list[str], list[str]]:
    """The lines on standard output, and those on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=cwd,
        env=_LOUD,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def _all_are(patterns: tuple[str, ...], lines: list[str]) -> None:
    theirs = [one for one in lines if not any(re.fullmatch(p, one) for p in patterns)]
    assert theirs == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gate.keras, segmenter.keras, samples/."""
    made = tmp_path_factory.mktemp("quiet")
    models = _MODELS.format(folder=str(ROOT))
    subprocess.run([sys.executable, "-c", models], cwd=made, check=True, capture_output=True)
    _run("edge_agent", "simulate", "--seed", "4000", "--frames", "8", "--out", "samples", cwd=made)
    return made


_CONVERT = ("--gate", "gate.keras", "--segmenter", "segmenter.keras", "--samples", "samples")


@pytest.mark.slow
def test_export(folder: Path) -> None:
    out, err = _run("export", "convert", *_CONVERT, "--out", "bundle", cwd=folder)
    steps = (rf"export: {k} of 10 steps: {_WHAT}" for k in range(1, 11))
    assert len(err) == 10
    assert all(re.fullmatch(p, one) for p, one in zip(steps, err, strict=True)), err
    rows = rf"(gate|segmenter) +(onnx|tflite)-(float32|int8) +({_NUMBER} +){{5}}[a-z].*"
    _all_are(
        (
            "stage +artifact +size kB.*",
            rows,
            "against float Keras on 8 .*",
            "agreement: .*",
            r"[a-z-]+ [\d.]+ was not tried: .*",
            "",
            "No guard: .*",
            "bundle: bundle",
        ),
        out,
    )


@pytest.mark.slow
def test_export_in_its_old_form_with_json_and_verbose(folder: Path) -> None:
    words = (*_CONVERT, "--out", "again", "--forms", "onnx-int8,tflite-int8")
    out, err = _run("export", *words, "--json", "--verbose", cwd=folder)
    (line,) = out
    assert len(json.loads(line)) == 4
    first, *steps, last = err
    assert first.startswith("notice: write edge-export convert --gate")
    _all_are((rf"export: \d of 6 steps: {_WHAT}",), steps)
    said = re.fullmatch("edge-export: what the libraries said: (.+)", last)
    assert said
    log = Path(said[1])
    # What it is all about: without the redirection this is on the terminal.
    assert "XNNPACK" in log.read_text()
    log.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["gate", "segmenter"])
def test_train(stage: str, tmp_path: Path) -> None:
    settings = ("network.width=0.0625", "data.strips=2", "data.frames_per_strip=8")
    settings += ("optimisation.epochs=2", "optimisation.batch=4")
    words = [word for one in settings for word in ("--set", one)]
    out, err = _run("training", stage, "--data", "simulated", *words, "--out", "run", cwd=tmp_path)
    _all_are((rf"run/{stage}\.keras: [\d,]+ parameters; best of \d epochs: .*",), out)
    _all_are((rf"epoch [12]/2 {_FIGURES}(  \*)?", r"training: \d+ of \d+ steps"), err)
    assert sum(one.startswith("epoch ") for one in err) == 2


def test_bench(tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("--samples", "3", "--warm-up", "1", "--threads", "1", "--json")
    out, err = _run("benchmarks", "latency", str(tiny_bundle), *words, cwd=tmp_path)
    assert json.loads("\n".join(out))["threads"] == 1
    assert err == ["timing: 8 of 8 rounds"]


@pytest.mark.slow
def test_bench_of_networks(tmp_path: Path) -> None:
    words = ("networks", "--out", "full", "--width", "0.05")
    out, err = _run("benchmarks", *words, cwd=tmp_path)
    assert (out, err) == ([], ["full/gate.keras", "full/segmenter.keras"])


def test_calibrate(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    out, err = _run("calibration", "gate", "--bundle", "bundle", cwd=tmp_path)
    assert (out, err) == (["bundle: p = 0.01 for every gate artifact"], [])
