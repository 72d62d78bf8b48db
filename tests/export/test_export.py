"""edge-export: Keras in, a bundle out that the agent takes; mistakes in one line."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from small_models import small_gate, small_segmenter

from edge_agent import bundle as bundles
from edge_agent.__main__ import main as agent
from edge_agent.camera.folder import read_image
from edge_agent.preprocess import prepare
from edge_agent.runtime import choose, open_runtime
from export import source
from export.__main__ import main


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    assert agent(["simulate", "--seed", "4000", "--frames", "12", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    small_gate().save(folder / "gate.keras")
    small_segmenter().save(folder / "segmenter.keras")
    return folder


def _words(models: Path, samples: Path, out: Path) -> list[str]:
    gate, segmenter = models / "gate.keras", models / "segmenter.keras"
    files = ["--gate", str(gate), "--segmenter", str(segmenter)]
    return [*files, "--samples", str(samples), "--out", str(out)]


@pytest.fixture(scope="session")
def bundle(models: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> bundles.Bundle:
    out = tmp_path_factory.mktemp("bundle")
    _export_in_its_own_process(models, samples, out)
    return bundles.load(out)


def _export_in_its_own_process(models: Path, samples: Path, out: Path) -> None:
    command = [sys.executable, "-m", "export", *_words(models, samples, out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bundle_has_all_forms_of_both_networks(bundle: bundles.Bundle) -> None:
    forms = ["onnx-float32", "onnx-int8", "tflite-float32", "tflite-int8"]
    for stage in (bundle.manifest.gate, bundle.manifest.segmenter):
        assert [a.label for a in stage.artifacts] == forms
    assert bundle.manifest.tools["tf2onnx"]
    assert len(bundle.manifest.provenance["gate_keras_sha256"]) == 64
    assert bundle.manifest.gate.input.scaling == "unit"
    assert bundle.manifest.segmenter.input.scaling == "standardise"


def test_default_threshold_is_the_seeds(bundle: bundles.Bundle) -> None:
    for artifact in bundle.manifest.gate.artifacts:
        assert artifact.threshold_logit == pytest.approx(math.log(0.01 / 0.99))


@pytest.mark.parametrize("label", ["onnx-float32", "onnx-int8", "tflite-float32", "tflite-int8"])
def test_every_artifact_gives_its_golden_outputs(bundle: bundles.Bundle, label: str) -> None:
    for stage in (bundle.manifest.gate, bundle.manifest.segmenter):
        assert choose(bundle, stage, precision=label, threads=1).artifact.label == label


def test_float_artifacts_decide_as_keras_does(
    bundle: bundles.Bundle, models: Path, samples: Path
) -> None:
    model = keras.saving.load_model(models / "gate.keras")
    stage = bundle.manifest.gate
    for artifact in stage.artifacts:
        if artifact.precision != "float32":
            continue
        runtime = open_runtime(bundle, artifact, 1)
        for path in sorted((samples / "images").iterdir()):
            batch = prepare(read_image(path), stage.input)
            want = np.asarray(model(batch, training=False))
            np.testing.assert_allclose(runtime.run(batch), want, atol=1e-4)


def test_int8_gate_keeps_a_logit_without_steps(bundle: bundles.Bundle) -> None:
    """A quantised last layer would give few distinct values for many inputs."""
    stage = bundle.manifest.gate
    rng = np.random.default_rng(0)
    batches = [rng.uniform(0, 1, (1, 64, 64, 3)).astype(np.float32) * k / 40 for k in range(40)]
    for artifact in stage.artifacts:
        if artifact.precision == "int8":
            runtime = open_runtime(bundle, artifact, 1)
            scores = [float(runtime.run(b).reshape(-1)[0]) for b in batches]
            steps = np.diff(np.unique(scores))
            assert len(steps) > 10
            # Steps of one quantiser are multiples of one size; a float head's are not.
            assert steps.min() < steps.max() / 4, artifact.label


def test_same_input_same_bytes(
    bundle: bundles.Bundle, models: Path, samples: Path, tmp_path: Path
) -> None:
    _export_in_its_own_process(models, samples, tmp_path / "again")
    for path in sorted(bundle.folder.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("end", ["dense", "layer"])
def test_a_gate_that_ends_in_a_sigmoid_is_cut_back_to_its_logit(end: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.keras"
    small_gate(sigmoid=end).save(path)
    cut = source.load("gate", path)
    batch = np.random.default_rng(0).uniform(0, 1, (3, 64, 64, 3)).astype(np.float32)
    probability = np.asarray(keras.saving.load_model(path)(batch, training=False))
    logit = np.asarray(cut.model(batch, training=False))
    np.testing.assert_allclose(1 / (1 + np.exp(-logit)), probability, atol=1e-6)
    assert "sigmoid" in cut.note


def test_json_and_class_names(
    models: Path,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*_words(models, samples, tmp_path), "--json", "--classes", "a,b,c,d"]
    assert main([*words, "--bundle-version", "3", "--min-area-px", "40"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 8 and {r["stage"] for r in rows} == {"gate", "segmenter"}
    manifest = bundles.load(tmp_path).manifest
    assert manifest.class_names == ("a", "b", "c", "d")
    assert (manifest.version, manifest.regions.min_area_px) == (3, 40)


def _broken(tmp_path: Path, kind: str) -> list[str]:
    """What to put after the good arguments, so that they are wrong."""
    if kind == "missing":
        return ["--gate", str(tmp_path / "none.keras")]
    if kind == "text":
        (tmp_path / "text.keras").write_text("not a model")
        return ["--gate", str(tmp_path / "text.keras")]
    if kind == "two outputs":
        small_segmenter().save(tmp_path / "two.keras")
        return ["--gate", str(tmp_path / "two.keras")]
    if kind == "few samples":
        (tmp_path / "few").mkdir()
        return ["--samples", str(tmp_path / "few")]
    if kind == "bad sample":
        for index in range(4):
            (tmp_path / f"{index}.png").write_text("no picture")
        return ["--samples", str(tmp_path)]
    return {
        "classes": ["--classes", "one,two"],
        "version": ["--bundle-version", "0"],
        "probability": ["--min-probability", "1.5"],
        "no folder": ["--samples", str(tmp_path / "none")],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("missing", "--gate"),
        ("text", "--gate"),
        ("two outputs", "one logit"),
        ("few samples", "--samples"),
        ("bad sample", "not a picture"),
        ("no folder", "--samples"),
        ("classes", "--classes"),
        ("version", "--bundle-version"),
        ("probability", "--min-probability"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    kind: str,
    named: str,
    models: Path,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = _words(models, samples, tmp_path / "out") + _broken(tmp_path, kind)
    assert main(words) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("edge-export: ")]
    assert len(lines) == 1 and named in lines[0]
    assert not (tmp_path / "out" / "bundle.json").exists()


def test_code_in_a_model_file_is_not_run(
    models: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = keras.Input((64, 64, 3))
    x = keras.layers.Lambda(lambda t: t * 2)(image)
    x = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(image, x).save(tmp_path / "lambda.keras")
    words = [*_words(models, samples, tmp_path / "out"), "--gate", str(tmp_path / "lambda.keras")]
    assert main(words) == 2
    assert "Keras cannot load it" in capsys.readouterr().err


def test_a_broken_off_export_leaves_no_manifest(
    bundle: bundles.Bundle, models: Path, samples: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(bundle.folder, tmp_path / "out"))
    (out / "golden.npz").unlink()
    (out / "golden.npz").mkdir()  # writing it fails: IsADirectoryError
    assert main(_words(models, samples, out)) == 2
    assert not (out / "bundle.json").exists()
