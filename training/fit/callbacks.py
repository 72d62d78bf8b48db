"""Callbacks of the training loop: progress, checkpoints, best weights, early end."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras

from training.errors import RunError
from training.fit import checkpoint
from training.fit.checkpoint import Checkpoint, Progress
from workshop.progress import counted, say

LAST, BEST = "last.npz", "best.npz"


class EpochKeeper(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeper of the best epoch by validation loss and of the last epoch.

    The run ends after `patience` epochs without a new best one. With `keep_last` the last epoch
    counts as the best, and the run does not end early. With `folder` None (every worker but the
    first) nothing is written. `names_of(epoch, step)` returns the names of the images in a step,
    for the error message of a loss that is not finite.
    """

    def __init__(
        self,
        folder: Path | None,
        progress: Progress,
        *,
        patience: int | None,
        names_of: Callable[[int, int], tuple[str, ...]],
        keep_last: bool = False,
    ) -> None:
        super().__init__()
        self.progress, self._folder = progress, folder
        self._patience, self._names_of = patience, names_of
        self._epoch, self._keep_last = progress.epochs, keep_last

    @property
    def ended(self) -> bool:
        """Return True if none of the last `patience` epochs was the best."""
        done = self.progress
        return self._patience is not None and done.epochs - done.best_epoch >= self._patience

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras' signature
        """Record the epoch's index for error messages."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raise RunError, with the names of the images, if the loss is not finite."""
        if not math.isfinite((logs or {})["loss"]):
            names = self._names_of(self._epoch, batch)
            raise RunError(
                f"epoch {self._epoch + 1}, step {batch + 1}: the loss is not a number (images "
                f"{', '.join(names)}); {self._kept()}; lower optimisation.learning_rate"
            )

    def _kept(self) -> str:
        if not self.progress.epochs:
            return "no epoch was finished"
        return f"the checkpoint of epoch {self.progress.epochs} is kept"

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch's figures and write its checkpoints; stop the training once `ended`.

        Raises RunError if the validation loss is not finite.
        """
        figures = {k: float(v) for k, v in (logs or {}).items()}
        loss = figures["val_loss"]
        if not math.isfinite(loss):
            raise RunError(
                f"epoch {epoch + 1}: the validation loss is not a number; {self._kept()}; "
                "lower optimisation.learning_rate"
            )
        old = self.progress
        better = self._keep_last or old.best_loss is None or loss < old.best_loss
        self.progress = Progress(
            run_sha256=old.run_sha256,
            epochs=epoch + 1,
            best_epoch=epoch + 1 if better else old.best_epoch,
            best_loss=loss if better else old.best_loss,
            history=(*old.history, figures),
        )
        network = checkpoint.values(self.model.variables)
        if self._folder is not None:
            if better:
                kept = Checkpoint(self.progress, checkpoint.values(self.model.weights), ())
                checkpoint.write(self._folder / BEST, kept)
            optimizer = checkpoint.values(self.model.optimizer.variables)
            checkpoint.write(self._folder / LAST, Checkpoint(self.progress, network, optimizer))
        self.model.stop_training = self.ended


class ProgressBar(keras.callbacks.Callback):  # type: ignore[misc]
    """Progress bar of the steps on standard error, with a line for each epoch."""

    def __init__(self, keeper: EpochKeeper, epochs: int, steps: int, done: int) -> None:
        super().__init__()
        self._keeper, self._epochs = keeper, epochs
        self._shown = ExitStack()
        # Only the lines of the epochs stay on the terminal.
        self._bar = self._shown.enter_context(
            counted(epochs * steps, "training", "step", kept=False, done=done * steps)
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras' signature
        """Advance the bar by one step."""
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Print the epoch's figures; an asterisk marks the best epoch so far."""
        figures = "  ".join(f"{k} {float(v):.4f}" for k, v in (logs or {}).items())
        best = "  *" if self._keeper.progress.best_epoch == epoch + 1 else ""
        say(f"epoch {epoch + 1}/{self._epochs}  {figures}{best}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras' signature
        """Close the bar."""
        self._shown.close()
