"""Losses: focal Tversky for the segmenter, mixed supervision for a gate with head "mapped"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

_DEFECTIVE_CELL = 1 / 16


def tversky_index(
    truth: Any,
    probability: Any,
    *,
    alpha: float,
    beta: float,
    smooth: float,
    per_class: bool = False,
) -> Any:
    """Compute the Tversky index, TP / (TP + alpha FN + beta FP), in [0, 1].

    See Abraham and Khan, arXiv:1810.07842, equation 3.

    Args:
        truth: Coverage by each class in 0..1, (n, h, w, classes).
        probability: Predictions, of the same shape.
        alpha: Weight of missed pixels.
        beta: Weight of false pixels.
        smooth: Added to numerator and denominator, so that a correct empty mask gives 1.
        per_class: Compute one index for each class.

    Returns:
        The index, (n,), or (n, classes) with `per_class`.
    """
    axes = (1, 2) if per_class else (1, 2, 3)
    hit = ops.sum(truth * probability, axis=axes)
    missed = ops.sum(truth * (1 - probability), axis=axes)
    extra = ops.sum((1 - truth) * probability, axis=axes)
    return (hit + smooth) / (hit + alpha * missed + beta * extra + smooth)


@keras.saving.register_keras_serializable(package="linegate")
class FocalTversky(keras.losses.Loss):  # type: ignore[misc]
    """Focal Tversky loss, (1 - Tversky index)^gamma, with optional cross-entropy.

    Args:
        alpha: Weight of missed pixels, see `tversky_index`.
        beta: Weight of false pixels.
        gamma: Exponent of the loss.
        smooth: See `tversky_index`.
        per_class: Average over the classes drawn on the image (all classes if none is drawn),
            because the index of an absent class carries almost no information.
        cross_entropy: Weight of the mean binary cross-entropy, which gives a gradient on images
            with empty masks.
        defect_cross_entropy: Weight of the cross-entropy over the defect pixels alone. They are
            few, and the other terms would neglect them and their wrong classes.
        class_weights: Weight of each class in the averages.
        name: Name of the loss.
        **kwargs: Arguments of `keras.losses.Loss`.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.7,
        beta: float = 0.3,
        gamma: float = 0.75,
        smooth: float = 1e-6,
        per_class: bool = False,
        cross_entropy: float = 0.0,
        defect_cross_entropy: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str = "focal_tversky",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.alpha, self.beta, self.gamma, self.smooth = alpha, beta, gamma, smooth
        self.per_class, self.cross_entropy = per_class, cross_entropy
        self.defect_cross_entropy = defect_cross_entropy
        self.class_weights = None if class_weights is None else tuple(class_weights)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each sample, (n,), from two tensors (n, h, w, classes)."""
        index = tversky_index(
            y_true,
            y_pred,
            alpha=self.alpha,
            beta=self.beta,
            smooth=self.smooth,
            per_class=self.per_class,
        )
        # The derivative of x**0.75 is infinite at 0.
        loss = ops.power(ops.maximum(1 - index, 1e-7), self.gamma)
        if self.per_class:
            drawn = ops.cast(ops.any(y_true > 0, axis=(1, 2)), loss.dtype)
            drawn = drawn + (1 - ops.max(drawn, axis=1, keepdims=True))
            loss = self._over_classes(loss, drawn)
        if self.cross_entropy or self.defect_cross_entropy:
            loss = loss + self._entropy(y_true, y_pred)
        return loss

    def _entropy(self, y_true: Any, y_pred: Any) -> Any:
        # Clipped, because the logarithm is infinite at 0.
        clipped = ops.clip(y_pred, 1e-7, 1 - 1e-7)
        entropy = -(y_true * ops.log(clipped) + (1 - y_true) * ops.log(1 - clipped))
        defect = ops.max(y_true, axis=3, keepdims=True)
        area = ops.maximum(ops.sum(defect, axis=(1, 2)), 1)
        on_defect = ops.sum(entropy * defect, axis=(1, 2)) / area
        both = self.cross_entropy * ops.mean(entropy, axis=(1, 2))
        both = both + self.defect_cross_entropy * on_defect
        return self._over_classes(both, ops.ones_like(both))

    def _over_classes(self, values: Any, counted: Any) -> Any:
        """Return the weighted mean of `values` (n, classes) over the counted classes, (n,)."""
        weights = counted
        if self.class_weights is not None:
            weights = counted * ops.convert_to_tensor(self.class_weights, dtype=values.dtype)
        return ops.sum(values * weights, axis=1) / ops.sum(weights, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = (
            "alpha",
            "beta",
            "gamma",
            "smooth",
            "per_class",
            "cross_entropy",
            "defect_cross_entropy",
            "class_weights",
        )
        return {**super().get_config(), **{k: getattr(self, k) for k in own}}


@keras.saving.register_keras_serializable(package="linegate")
class MixedSupervision(keras.losses.Loss):  # type: ignore[misc]
    """Binary cross-entropy over label and mask, for the model of `networks.training_model`.

    The loss is the sum over both logits, so that each learns the label alone, and over the cells.
    The truth is float32 (n, 1 + h * w): 1 for defective, then the coverage of each pixel, or -1
    everywhere if the masks are unknown; the cells then do not learn. A cell is defective if at
    least 1/16 of it is covered, and ignored if less is. In each image the defective cells have
    the same total weight as the defect-free ones. After Bozic et al., Mixed supervision for
    surface-defect detection (arXiv:2104.06064).

    Args:
        shape: Height and width of the image in px.
        grid: Height and width of the map in cells.
        name: Name of the loss.
        **kwargs: Arguments of `keras.losses.Loss`.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        grid: Sequence[int],
        name: str = "mixed_supervision",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.shape, self.grid = tuple(shape), tuple(grid)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each sample, (n,), from truth and logits, see the class."""
        defective, drawn = y_true[:, :1], ops.reshape(y_true[:, 1:], (-1, *self.shape, 1))
        loss = ops.sum(_entropy_of_logits(defective, y_pred[:, :2]), axis=1)
        step = self.shape[0] // self.grid[0], self.shape[1] // self.grid[1]
        cover = ops.reshape(ops.average_pool(drawn, step, step), (-1, 1, math.prod(self.grid)))
        cells = ops.reshape(y_pred[:, 2:], (ops.shape(y_pred)[0], -1, math.prod(self.grid)))
        on = ops.cast(cover >= _DEFECTIVE_CELL, y_pred.dtype)
        off = ops.cast(cover == 0, y_pred.dtype)
        for kind in on, off:
            error = ops.sum(_entropy_of_logits(on, cells) * kind, axis=2)
            loss = loss + ops.mean(error / ops.maximum(ops.sum(kind, axis=2), 1), axis=1)
        return loss

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "shape": self.shape, "grid": self.grid}


def _entropy_of_logits(truth: Any, logit: Any) -> Any:
    return ops.softplus(logit) - truth * logit
