"""A gate that looks twice: a batch of two is made inside the graph, and every form keeps it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from edge_agent.bundle import manifest as bundles
from edge_agent.bundle import reader
from edge_agent.bundle.manifest import GATE_INPUT, Input
from edge_agent.image_files import read_image
from edge_agent.inspection.preprocess import prepare
from edge_agent.inspection.runtime import open_runtime
from export.__main__ import main as export
from tests.support.small_models import level_segmenter
from tests.support.spots import write
from training.networks import networks

# The logits spread by one; int8 of weights that learnt nothing is noise in large part.
ALLOWED = {"float32": 1e-3, "float16": 0.05}
AGREEMENT = 0.6


@pytest.fixture(scope="module", params=["pooled", "mapped"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bundles.Bundle, list[Input], keras.Model]:
    folder = tmp_path_factory.mktemp("half_turn")
    write(folder / "data", 16)
    keras.utils.set_random_seed(7)
    gate = networks.gate(width=1 / 8, head=request.param, half_turn=True)
    images = [read_image(path) for path in sorted((folder / "data" / "images").iterdir())]
    batches = [prepare(image, GATE_INPUT) for image in images]
    pools = keras.Model(gate.input, gate.get_layer("logit").input)
    seen = np.concatenate([pools.predict(x, verbose=0) for x in batches])
    # It starts undecided; with these weights the logits spread by one.
    weights = np.random.default_rng(0).normal(0, 1, (seen.shape[1], 1)) / np.sqrt(seen.shape[1])
    weights /= (seen @ weights).std()
    gate.get_layer("logit").set_weights([weights.astype(np.float32), -(seen @ weights).mean(0)])
    gate.save(folder / "gate.keras")
    level_segmenter().save(folder / "segmenter.keras")
    words = [f"--{s}={folder / s}.keras" for s in ("gate", "segmenter")]
    words += ["--samples", str(folder / "data" / "images"), "--out", str(folder / "bundle")]
    assert export([*words, "--forms", "all"]) == 0
    return reader.load(folder / "bundle"), batches, gate


def test_every_form_says_what_keras_says(
    made: tuple[bundles.Bundle, list[Input], keras.Model],
) -> None:
    bundle, batches, gate = made
    want = np.array([float(gate.predict(x, verbose=0)[0, 0]) for x in batches])
    assert len(bundle.manifest.gate.artifacts) == 8
    for artifact in bundle.manifest.gate.artifacts:
        runtime = open_runtime(bundle, artifact, 1)
        outputs = [runtime.run(x) for x in batches]
        assert all(out.shape == (1, 1) for out in outputs)
        got = np.array([float(out[0, 0]) for out in outputs])
        if artifact.precision in ALLOWED:
            apart = float(np.abs(got - want).max())
            assert apart <= ALLOWED[artifact.precision], artifact.label
        assert np.corrcoef(got, want)[0, 1] > AGREEMENT, artifact.label


def test_both_looks_count_the_same(
    made: tuple[bundles.Bundle, list[Input], keras.Model],
) -> None:
    bundle, batches, _ = made
    for artifact in bundle.manifest.gate.artifacts:
        runtime = open_runtime(bundle, artifact, 1)
        for x in batches[:4]:
            turned = np.ascontiguousarray(x[:, ::-1, ::-1])
            np.testing.assert_allclose(runtime.run(turned), runtime.run(x), atol=1e-4)
