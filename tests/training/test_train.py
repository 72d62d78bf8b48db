"""edge-train on the simulator: a small run of each stage writes a model that loads."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from edge_agent.preprocess import GATE_INPUT
from training.__main__ import main
from training.steel import MIN_DEFECT_PX, SteelBatches, render_set


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["gate", "segmenter"])
def test_a_run_writes_a_model_and_its_figures(stage: str, tmp_path: Path) -> None:
    out = tmp_path / f"{stage}.keras"
    small = ["--width", "0.0625", "--strips", "1", "--frames-per-strip", "16"]
    assert (
        main([stage, "--simulated", "--out", str(out), *small, "--epochs", "1", "--batch", "8"])
        == 0
    )
    figures = json.loads(out.with_suffix(".json").read_text())
    model = keras.saving.load_model(out)
    assert model.count_params() == figures["parameters"]
    assert getattr(model, "optimizer", None) is None  # neither optimizer nor loss travels with it
    assert figures["recipe"]["stage"] == stage
    assert figures["train_frames"] >= figures["train_defective"] > 0


def test_out_must_be_a_keras_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "--simulated", "--out", str(tmp_path / "gate.h5")]) == 2
    assert "must end in .keras" in capsys.readouterr().err


def test_set_leaves_out_slivers_and_pairs_masks_with_labels() -> None:
    data = render_set([1000, 1001], 20, clean_share=1.0, spec=GATE_INPUT, masks=True)
    cover = data.cover.reshape(len(data.cover), -1).sum(axis=1, dtype=np.int64)
    # cover is 255 at full cover of a network pixel, which is 1600 / 256 frame pixels.
    frame_px = cover / 255 * 1600 / 256
    assert (frame_px[data.defective] > 0.9 * MIN_DEFECT_PX).all()
    assert (cover[~data.defective] == 0).all()
    assert data.defective.any() and not data.defective.all()


def test_flips_move_image_and_mask_together() -> None:
    data = render_set(range(1000, 1006), 20, clean_share=0.0, spec=GATE_INPUT, masks=True)
    batches = SteelBatches(
        data, stage="segmenter", spec=GATE_INPUT, batch=len(data.images), seed=0, augment=True
    )
    images, masks = batches[0]
    # The darkest class (scale) stays where the image is dark, whatever was flipped.
    scale = masks[..., 3] > 0.9
    assert scale.any()
    assert images[..., 0][scale].mean() < images[..., 0].mean()
