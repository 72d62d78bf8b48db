"""Which epoch a run keeps."""

from pathlib import Path

import keras
import numpy as np
import pytest

from training.fit import checkpoint
from training.fit.callbacks import BEST, EpochKeeper
from training.fit.checkpoint import Progress


@pytest.mark.parametrize(("keep_last", "kept", "ended"), [(False, 2, True), (True, 4, False)])
def test_keeps_the_epoch_of_the_lowest_loss_or_the_last(
    tmp_path: Path, keep_last: bool, kept: int, ended: bool
) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    keeper = EpochKeeper(
        tmp_path, Progress(run_sha256=""), patience=2, names_of=lambda *_: (), keep_last=keep_last
    )
    keeper.set_model(model)
    for epoch, loss in enumerate((0.5, 0.25, 0.375, 0.75)):
        model.set_weights([np.full((1, 1), epoch + 1.0)])
        keeper.on_epoch_end(epoch, {"val_loss": loss})
    best = checkpoint.read(tmp_path / BEST)
    assert float(best.network[0][0, 0]) == kept == keeper.progress.best_epoch
    assert keeper.ended is model.stop_training is ended
