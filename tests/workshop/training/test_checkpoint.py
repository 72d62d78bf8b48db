"""A checkpoint is there whole or not at all; a card travels in its model."""

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from edge_agent.bundle.manifest import SEGMENTER_INPUT, InputSpec, Tiles
from training.fit import checkpoint
from training.fit.checkpoint import Checkpoint, Progress
from training.networks import networks
from workshop import model_card
from workshop.errors import WorkshopError


def test_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    progress = Progress(run_sha256="00", epochs=2, best_epoch=1, best_loss=0.5, history=({"a": 1},))
    given = Checkpoint(progress, (np.arange(3.0), np.array(7)), (np.ones((2, 2)),))
    checkpoint.write(path, given)
    read = checkpoint.read(path)
    assert read.progress == progress
    for a, b in ((read.network, given.network), (read.optimizer, given.optimizer)):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["last.npz"]
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(WorkshopError):
            checkpoint.read(path)


def test_card_travels_in_the_model_and_keras_does_not_mind(tmp_path: Path) -> None:
    path = tmp_path / "segmenter.keras"
    model = networks.segmenter(width=0.25, height_px=32, width_px=32, classes=2)
    model.save(path)
    assert model_card.read(path) is None
    tiled = InputSpec(
        height=32,
        width=32,
        channels=1,
        scaling="standardise",
        tiles=Tiles(height_px=64, width_px=64, overlap_px=8),
    )
    for spec in (SEGMENTER_INPUT, tiled):
        model.save(path)
        given = model_card.ModelCard(
            stage="segmenter", input=spec, class_names=("a", "b"), seen=("0" * 16,)
        )
        model_card.write(path, given)
        assert model_card.read(path) == given
        again = keras.saving.load_model(path)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(model.get_weights(), again.get_weights(), strict=True)
        )


def test_a_broken_card_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "gate.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("linegate.json", '{"stage": "roof"}')
    with pytest.raises(WorkshopError, match=r"linegate\.json") as raised:
        model_card.read(path)
    assert "\n" not in str(raised.value)
    path.write_bytes(b"not a zip")
    with pytest.raises(WorkshopError, match=r"give a \.keras file"):
        model_card.read(path)
