"""Training loop for one device, all GPUs or several machines.

`Model.fit` of Keras 3 fails under MultiWorkerMirroredStrategy, where a batch spans the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


def run(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    training: tf.data.Dataset,
    validation: tf.data.Dataset,
    *,
    epochs: range,
    steps: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train `model` until the last epoch or until a callback sets `stop_training`.

    Args:
        model: A compiled model with a built optimizer.
        strategy: The strategy under which `model` was made.
        training: Endless batches.
        validation: Batches, all read after each epoch.
        epochs: Numbers of the epochs, from 0.
        steps: Training batches in an epoch.
        callbacks: Get Keras' logs: the metrics, with the prefix `val_` for validation.
    """
    train_on = _compiled(strategy, model.train_step)
    test_on = _compiled(strategy, model.test_step)
    listeners = keras.callbacks.CallbackList(
        callbacks, model=model, epochs=epochs.stop, steps=steps
    )
    batches = iter(strategy.experimental_distribute_dataset(training))
    checks = strategy.experimental_distribute_dataset(validation)
    model.stop_training = False
    listeners.on_train_begin()
    try:
        for epoch in epochs:
            listeners.on_epoch_begin(epoch)
            model.reset_metrics()
            for step in range(steps):
                listeners.on_train_batch_begin(step)
                train_on(next(batches))
                # Only the loss: an AUC at each step is expensive and not displayed.
                listeners.on_train_batch_end(step, {"loss": float(_loss(model).result())})
            logs = _logs(model)
            model.reset_metrics()
            for batch in checks:
                test_on(batch)
            listeners.on_epoch_end(epoch, logs | {f"val_{k}": v for k, v in _logs(model).items()})
            if model.stop_training:
                break
    finally:
        # After an error too, so that the progress bar and the logs are closed.
        listeners.on_train_end()


def _compiled(strategy: tf.distribute.Strategy, step: Callable[[Any], Any]) -> Any:
    def on_all(batch: Any) -> None:
        strategy.run(step, args=(batch,))

    # One trace for all batch sizes: the last batch of the validation is smaller.
    return tf.function(on_all, reduce_retracing=True)


def _loss(model: keras.Model) -> keras.metrics.Metric:
    return next(m for m in model.metrics if m.name == "loss")


def _logs(model: keras.Model) -> dict[str, float]:
    return {k: float(v) for k, v in model.get_metrics_result().items()}
