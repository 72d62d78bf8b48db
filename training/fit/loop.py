"""The steps of a training run: the same few lines for one device, all GPUs and many machines.

Not `Model.fit`: under MultiWorkerMirroredStrategy Keras 3 fails there, building the model from a
batch that is spread over the workers.
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
    """Train the compiled `model`, whose optimizer is built, until a callback stops it.

    `training` has no end, and each epoch takes `steps` batches of it; `validation` is read
    through after each. Callbacks get Keras' logs: the metrics, with `val_` for validation.
    """

    train_on = _compiled(strategy, model.train_step)
    test_on = _compiled(strategy, model.test_step)
    told = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs.stop, steps=steps)
    batches = iter(strategy.experimental_distribute_dataset(training))
    checks = strategy.experimental_distribute_dataset(validation)
    model.stop_training = False
    told.on_train_begin()
    try:
        for epoch in epochs:
            told.on_epoch_begin(epoch)
            model.reset_metrics()
            for step in range(steps):
                told.on_train_batch_begin(step)
                train_on(next(batches))
                # Not all metrics at each step: an AUC costs more than it tells there.
                told.on_train_batch_end(step, {"loss": float(_loss(model).result())})
            logs = _logs(model)
            model.reset_metrics()
            for batch in checks:
                test_on(batch)
            told.on_epoch_end(epoch, logs | {f"val_{k}": v for k, v in _logs(model).items()})
            if model.stop_training:
                break
    finally:
        # After an error too: the progress bar goes, the logs are closed.
        told.on_train_end()


def _compiled(strategy: tf.distribute.Strategy, step: Callable[[Any], Any]) -> Any:
    def on_all(batch: Any) -> None:
        strategy.run(step, args=(batch,))

    # The last batch of the validation is a smaller one: one trace for both.
    return tf.function(on_all, reduce_retracing=True)


def _loss(model: keras.Model) -> keras.metrics.Metric:
    return next(m for m in model.metrics if m.name == "loss")


def _logs(model: keras.Model) -> dict[str, float]:
    return {k: float(v) for k, v in model.get_metrics_result().items()}
