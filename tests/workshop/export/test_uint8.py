"""--uint8-input: the camera's levels go into the network, and it gives the same numbers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.bundle import reader
from edge_agent.bundle.manifest import InputSpec, Tiles
from edge_agent.image_files import read_image
from edge_agent.inspection.preprocess import prepare, resize
from edge_agent.inspection.runtime import open_runtime
from edge_agent.inspection.runtime.self_test import golden_difference
from export.__main__ import main
from export.exporter import FORMS
from export.report import document
from tests.support import spots
from tests.support.small_models import level_gate, level_segmenter, small_gate
from workshop.keras_models import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uint8")
    spots.write(folder / "data", 48)
    level_gate().save(folder / "gate.keras")
    level_segmenter().save(folder / "segmenter.keras")
    float32 = "onnx-float32,tflite-float32"
    for name, *more in (
        ("float", "--forms", float32),
        ("uint8", "--uint8-input", "--forms", "all"),
    ):
        words = [f"--{s}={folder / s}.keras" for s in ("gate", "segmenter")]
        words += ["--data", str(folder / "data"), "--out", str(folder / name)]
        assert main([*words, *more]) == 0
    return folder


def test_only_where_the_scaling_is_a_constant(folder: Path) -> None:
    manifest = reader.load(folder / "uint8").manifest
    assert manifest.gate.input.scaling == "network"
    assert manifest.segmenter.input.scaling == "standardise"
    assert "division by 255" in manifest.provenance["gate_note"]


def test_every_form_takes_uint8_and_none_became_another(folder: Path) -> None:
    bundle = reader.load(folder / "uint8")
    report = msgspec.json.decode(
        (folder / "uint8" / "export.json").read_bytes(), type=document.ExportReport
    )
    assert all(o.became == o.wanted and not o.kept_float for o in report.outcomes)
    assert not any(v.fault or v.flips for v in report.gate)
    stage = bundle.manifest.gate
    assert [a.label for a in stage.artifacts] == [form.label for form in FORMS]
    for artifact in stage.artifacts:
        assert artifact.oldest_runtime is not None
        assert artifact.oldest_runtime.refusal == ""
        runtime = open_runtime(bundle, artifact, 1)
        assert golden_difference(bundle, stage, artifact, runtime) <= 0.004, artifact.label


def test_float32_gives_the_numbers_that_it_gives_with_a_float_input(folder: Path) -> None:
    pairs = [reader.load(folder / name) for name in ("float", "uint8")]
    for label in ("onnx-float32", "tflite-float32"):
        runtimes = []
        for bundle in pairs:
            (one,) = [a for a in bundle.manifest.gate.artifacts if a.label == label]
            runtimes.append((open_runtime(bundle, one, 1), bundle.manifest.gate.input))
        for path in sorted((folder / "data" / "images").iterdir()):
            image = read_image(path)
            got = [runtime.run(prepare(image, spec)) for runtime, spec in runtimes]
            np.testing.assert_allclose(got[0], got[1], rtol=1e-5)


def test_every_level_is_scaled_as_the_line_scales_it(tmp_path: Path) -> None:
    small_gate().save(tmp_path / "gate.keras")
    plain = load.load("gate", tmp_path / "gate.keras")
    uint8 = load.load("gate", tmp_path / "gate.keras", uint8_input=True)
    levels = np.arange(64 * 64 * 3, dtype=np.int64).reshape(64, 64, 3) % 256
    image = levels.astype(np.uint8)
    want = plain.run(prepare(image, plain.spec))
    np.testing.assert_allclose(uint8.run(prepare(image, uint8.spec)), want, rtol=1e-6)


def test_the_input_is_the_frame_as_it_was_resized() -> None:
    spec = InputSpec(height=32, width=32, channels=3, scaling="network")
    image = np.random.default_rng(0).integers(0, 256, (64, 200), np.uint8)
    got = prepare(image, spec)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], resize(image, spec))
    tiles = Tiles(height_px=64, width_px=64, overlap_px=0)
    tiled = prepare(image, msgspec.structs.replace(spec, tiles=tiles))
    assert tiled.dtype == np.uint8
    assert tiled.shape == (4, 32, 32, 3)
