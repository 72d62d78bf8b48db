"""Metrics during training; reports use `workshop.segmentation_metrics`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="linegate")
class Dice(keras.metrics.Metric):  # type: ignore[misc]
    """Mean Dice over images and the classes drawn on them, at probability 0.5.

    A class that is not drawn on an image does not count for it, because correct empty masks would
    dominate the mean.
    """

    def __init__(self, name: str = "dice", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: two tensors (n, h, w, classes); `sample_weight` is not supported."""
        del sample_weight  # part of the signature of Keras
        truth = ops.cast(y_true > 0.5, "float32")
        guess = ops.cast(y_pred > 0.5, "float32")
        drawn = ops.sum(truth, (1, 2))
        dice = 2 * ops.sum(truth * guess, (1, 2)) / ops.maximum(drawn + ops.sum(guess, (1, 2)), 1)
        present = ops.cast(drawn > 0, "float32")
        classes = ops.sum(present, 1)
        self.total.assign_add(ops.sum(ops.sum(dice * present, 1) / ops.maximum(classes, 1)))
        self.count.assign_add(ops.sum(ops.cast(classes > 0, "float32")))

    def result(self) -> Any:
        """Return the mean, a scalar; 0 if no image has a defect."""
        return self.total / ops.maximum(self.count, 1)


@keras.saving.register_keras_serializable(package="linegate")
class MixedSupervisionAUC(keras.metrics.AUC):  # type: ignore[misc]
    """`keras.metrics.AUC` of the gate's logit, on the tensors of `losses.MixedSupervision`."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: truth (n, 1 + h * w) and logits (n, 2 + cells)."""
        logit = ops.sum(y_pred[:, :2], axis=1, keepdims=True)
        super().update_state(y_true[:, :1], logit, sample_weight)
