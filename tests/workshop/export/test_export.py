"""edge-export: Keras in, a bundle out that the agent takes; mistakes in one line."""

import json
import math
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest

from edge_agent.__main__ import main as agent
from edge_agent.bundle import manifest as bundles
from edge_agent.bundle import reader
from edge_agent.bundle.manifest import InputSpec, Tiles
from edge_agent.image_files import read_image
from edge_agent.inspection.preprocess import prepare
from edge_agent.inspection.runtime import choose, open_runtime
from edge_agent.inspection.runtime.self_test import golden_difference
from export.__main__ import main
from export.conversion import minimum_runtime
from export.exporter import FORMS
from tests.support.small_models import small_gate, small_segmenter
from workshop import model_card
from workshop.keras_models import load
from workshop.model_card import ModelCard


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
    files = ["convert", "--gate", str(gate), "--segmenter", str(segmenter)]
    return [*files, "--samples", str(samples), "--out", str(out)]


@pytest.fixture(scope="session")
def bundle(models: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> bundles.Bundle:
    out = tmp_path_factory.mktemp("bundle")
    _export_in_its_own_process(models, samples, out)
    return reader.load(out)


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


def test_every_artifact_says_what_it_asks_of_an_old_runtime(bundle: bundles.Bundle) -> None:
    has_old_tflite = minimum_runtime.interpreter() is not None
    for stage in (bundle.manifest.gate, bundle.manifest.segmenter):
        for artifact in stage.artifacts:
            old = artifact.oldest_runtime
            assert old is not None
            assert old.refusal == ""
            if artifact.format == "onnx":
                assert artifact.op_versions["ai.onnx"] == 17
                assert old.name == "onnxruntime 1.23"
            else:
                assert artifact.op_versions["CONV_2D"] >= 1
                assert (old.name, old.tried) == ("tflite-runtime 2.14.0", has_old_tflite)


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


def test_all_forms_run_here_and_say_what_an_old_runtime_cannot_run(
    models: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*_words(models, samples, tmp_path), "--forms", "all", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    bundle = reader.load(tmp_path)
    for stage in (bundle.manifest.gate, bundle.manifest.segmenter):
        assert [a.label for a in stage.artifacts] == [form.label for form in FORMS]
        for artifact in stage.artifacts:
            runtime = open_runtime(bundle, artifact, 1)
            assert golden_difference(bundle, stage, artifact, runtime) <= 0.004, artifact.label
    # Float16 is the same network, to three digits.
    differences = {(r["stage"], r["label"]): r["mean_difference"] for r in rows}
    assert all(differences[s, "onnx-float16"] < 0.02 for s in ("gate", "segmenter"))
    # The foreign int8 is refused on the line, not here.
    foreign = "onnx-int8-aarch64" if platform.machine() == "x86_64" else "onnx-int8"
    choice = choose(bundle, bundle.manifest.gate, precision="auto", threads=1)
    assert any(r.label == foreign and "made for" in r.reason for r in choice.refused)


def test_forms_by_name(models: Path, samples: Path, tmp_path: Path) -> None:
    words = _words(models, samples, tmp_path)
    assert main([*words, "--forms", "tflite-float16,onnx-float32"]) == 0
    labels = [a.label for a in reader.load(tmp_path).manifest.gate.artifacts]
    assert labels == ["onnx-float32", "tflite-float16"]


def test_an_unknown_form_is_one_line(
    models: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*_words(models, samples, tmp_path), "--forms", "onnx-int4"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("edge-export: --forms: 'onnx-int4' is none; write usual, all or some")


@pytest.mark.parametrize("end", ["dense", "layer"])
def test_a_gate_that_ends_in_a_sigmoid_is_cut_back_to_its_logit(end: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.keras"
    small_gate(sigmoid=end).save(path)
    cut = load.load("gate", path)
    batch = np.random.default_rng(0).uniform(0, 1, (3, 64, 64, 3)).astype(np.float32)
    probability = np.asarray(keras.saving.load_model(path)(batch, training=False))
    logit = cut.run(batch)
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
    assert {r["refused_there"] for r in rows} == {""}
    assert len(rows) == 8
    assert {r["stage"] for r in rows} == {"gate", "segmenter"}
    manifest = reader.load(tmp_path).manifest
    assert manifest.class_names == ("a", "b", "c", "d")
    assert (manifest.version, manifest.regions.min_area_px) == (3, 40)


# The card decides.

TILES = Tiles(height_px=160, width_px=700, overlap_px=32)
GATE_CARD = ModelCard(
    stage="gate",
    input=InputSpec(height=64, width=64, channels=3, scaling="standardise", tiles=TILES),
    class_names=("pit", "scratch"),
)
SEGMENTER_CARD = ModelCard(
    stage="segmenter",
    input=InputSpec(
        height=64, width=64, channels=3, scaling="unit", interpolation="linear", tiles=TILES
    ),
    class_names=("pit", "scratch"),
    seen=("0" * 64,),
)


@pytest.fixture(scope="session")
def carded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose cards ask for what no model without a card gets."""
    folder = tmp_path_factory.mktemp("carded")
    small_gate().save(folder / "gate.keras")
    small_segmenter(maps=2, channels=3).save(folder / "segmenter.keras")
    model_card.write(folder / "gate.keras", GATE_CARD)
    model_card.write(folder / "segmenter.keras", SEGMENTER_CARD)
    return folder


@pytest.fixture(scope="session")
def tiled(carded: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> bundles.Bundle:
    out = tmp_path_factory.mktemp("tiled")
    _export_in_its_own_process(carded, samples, out)
    return reader.load(out)


def test_the_card_goes_into_the_bundle(tiled: bundles.Bundle) -> None:
    assert tiled.manifest.gate.input == GATE_CARD.input
    assert tiled.manifest.segmenter.input == SEGMENTER_CARD.input
    # Before those of the samples' labels.csv.
    assert tiled.manifest.class_names == ("pit", "scratch")


@pytest.mark.parametrize("label", ["onnx-float32", "onnx-int8", "tflite-float32", "tflite-int8"])
def test_golden_outputs_are_those_of_the_tiles(tiled: bundles.Bundle, label: str) -> None:
    # 256x1600 in tiles of 160x700 with 32 px of overlap: 2 rows of 3.
    count = 6 * len(tiled.golden.images)
    for stage, shape in ((tiled.manifest.gate, ()), (tiled.manifest.segmenter, (64, 64, 2))):
        choice = choose(tiled, stage, precision=label, threads=1)
        assert choice.artifact.label == label
        assert tiled.golden.outputs[choice.artifact.file.name].shape == (count, *shape)


def test_golden_frames_are_those_with_the_best_and_the_worst_tile(
    tiled: bundles.Bundle, carded: Path, samples: Path
) -> None:
    model = keras.saving.load_model(carded / "gate.keras")
    images = [read_image(path) for path in sorted((samples / "images").iterdir())]
    scores = [
        float(np.asarray(model(prepare(image, GATE_CARD.input), training=False)).max())
        for image in images
    ]
    order = np.argsort(scores)
    for image, index in zip(tiled.golden.images, (*order[:2], *order[-2:]), strict=True):
        np.testing.assert_array_equal(image, images[index])


def test_with_a_card_too_same_input_same_bytes(
    tiled: bundles.Bundle, carded: Path, samples: Path, tmp_path: Path
) -> None:
    _export_in_its_own_process(carded, samples, tmp_path / "again")
    for path in sorted(tiled.folder.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_classes_on_the_command_line_come_before_the_cards(
    carded: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*_words(carded, samples, tmp_path), "--classes", "one,two", "--max-samples", "4"]
    assert main(words) == 0
    assert reader.load(tmp_path).manifest.class_names == ("one", "two")
    assert "24 (gate) and 24 (segmenter) inputs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "change", "named"),
    [
        ("gate", {"stage": "segmenter"}, "its card says segmenter"),
        ("segmenter", {"stage": "gate"}, "its card says gate"),
        ("gate", {"height": 32}, "(64, 64, 3), but its card says (32, 64, 3)"),
        ("segmenter", {"channels": 1}, "(64, 64, 3), but its card says (64, 64, 1)"),
        ("segmenter", {"class_names": ("pit",)}, "2 maps, but its card names 1 classes"),
        ("gate", None, "linegate.json"),
    ],
)
def test_a_card_that_does_not_fit_its_model_is_one_line(
    stage: str,
    change: dict[str, Any] | None,
    named: str,
    carded: Path,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "model.keras"
    (small_gate() if stage == "gate" else small_segmenter(maps=2, channels=3)).save(path)
    if change is None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("linegate.json", "{}")
    else:
        good = GATE_CARD if stage == "gate" else SEGMENTER_CARD
        spec = {k: v for k, v in change.items() if k in ("height", "channels")}
        rest = {k: v for k, v in change.items() if k not in spec}
        changed = msgspec.structs.replace(
            good, input=msgspec.structs.replace(good.input, **spec), **rest
        )
        model_card.write(path, changed)
    words = [*_words(carded, samples, tmp_path / "out"), f"--{stage}", str(path)]
    assert main(words) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("edge-export: ")]
    assert named in line
    assert str(path) in line
    assert f"--{stage}" in line


def test_samples_of_too_many_tiles_are_one_line(
    samples: Path, carded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gate.keras"
    small_gate().save(path)
    tiny = Tiles(height_px=8, width_px=8, overlap_px=0)
    model_card.write(
        path,
        msgspec.structs.replace(
            GATE_CARD, input=msgspec.structs.replace(GATE_CARD.input, tiles=tiny)
        ),
    )
    assert main([*_words(carded, samples, tmp_path / "out"), "--gate", str(path)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("edge-export: ")]
    assert "--samples" in line
    assert "6400 tiles" in line


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
    assert len(lines) == 1
    assert named in lines[0]
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
    (out / "bundle.sig").write_text("of the bundle that was here")
    (out / "golden.npz").unlink()
    (out / "golden.npz").mkdir()  # writing it fails: IsADirectoryError
    assert main(_words(models, samples, out)) == 2
    assert not (out / "bundle.json").exists()
    assert not (out / "bundle.sig").exists()
