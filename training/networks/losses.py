"""The focal Tversky loss for masks, safe in float32, and the loss of a gate that points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

_COVERED = 1 / 16


def tversky_index(
    truth: Any,
    probability: Any,
    *,
    alpha: float,
    beta: float,
    smooth: float,
    per_class: bool = False,
) -> Any:
    """Tversky index per sample over all pixels and classes, or per class: in [0, 1].

    TP / (TP + alpha FN + beta FP) as in Abraham and Khan, arXiv:1810.07842, eq. 3; `smooth` is
    added above and below, so that an empty mask rightly predicted empty scores 1. Inputs are
    (n, h, w, classes); the result is (n,), or (n, classes).
    """
    axes = (1, 2) if per_class else (1, 2, 3)
    hit = ops.sum(truth * probability, axis=axes)
    missed = ops.sum(truth * (1 - probability), axis=axes)
    extra = ops.sum((1 - truth) * probability, axis=axes)
    return (hit + smooth) / (hit + alpha * missed + beta * extra + smooth)


@keras.saving.register_keras_serializable(package="linegate")
class FocalTversky(keras.losses.Loss):  # type: ignore[misc]
    """(1 - Tversky index)^gamma. The seed's values: alpha 0.7, beta 0.3, gamma 0.75.

    `per_class` takes the index class by class and averages the losses over the classes drawn on
    the image (all where none is), weighted by `class_weights` if given: of a class that is not
    there the index says next to nothing. `cross_entropy` adds that much mean binary
    cross-entropy, with the same weights, which keeps a gradient on images whose masks are empty.
    `defect_cross_entropy` adds that much of it over the defect pixels alone: few as they are,
    they are missed otherwise, and the maps of the wrong classes are held down there.
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
        index = tversky_index(
            y_true,
            y_pred,
            alpha=self.alpha,
            beta=self.beta,
            smooth=self.smooth,
            per_class=self.per_class,
        )
        # The derivative of x**0.75 at 0 is infinite: keep a hair's breadth away from it.
        loss = ops.power(ops.maximum(1 - index, 1e-7), self.gamma)
        if self.per_class:
            drawn = ops.cast(ops.any(y_true > 0, axis=(1, 2)), loss.dtype)
            drawn = drawn + (1 - ops.max(drawn, axis=1, keepdims=True))
            loss = self._over_classes(loss, drawn)
        if self.cross_entropy or self.defect_cross_entropy:
            loss = loss + self._entropy(y_true, y_pred)
        return loss

    def _entropy(self, y_true: Any, y_pred: Any) -> Any:
        near = ops.clip(y_pred, 1e-7, 1 - 1e-7)
        entropy = -(y_true * ops.log(near) + (1 - y_true) * ops.log(1 - near))
        on = ops.max(y_true, axis=3, keepdims=True)
        on_defect = ops.sum(entropy * on, axis=(1, 2)) / ops.maximum(ops.sum(on, axis=(1, 2)), 1)
        both = self.cross_entropy * ops.mean(entropy, axis=(1, 2))
        both = both + self.defect_cross_entropy * on_defect
        return self._over_classes(both, ops.ones_like(both))

    def _over_classes(self, values: Any, counted: Any) -> Any:
        """Mean of (n, classes) over the classes that count, weighted."""
        weights = counted
        if self.class_weights is not None:
            weights = counted * ops.convert_to_tensor(self.class_weights, dtype=values.dtype)
        return ops.sum(values * weights, axis=1) / ops.sum(weights, axis=1)

    def get_config(self) -> dict[str, Any]:
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
class Pointing(keras.losses.Loss):  # type: ignore[misc]
    """Binary cross-entropy of what `networks.taught` gives: of both logits, so that each learns
    to say it alone, and of the cells.

    Truth is float32 (n, 1 + h * w): 1 for defective, then how much of each pixel defects cover,
    -1 throughout where nobody drew them, which teaches no cell. A cell is the defect's from a
    sixteenth of it on; with less it counts for nothing. However few, the defect's cells of an
    image weigh as much together as the defect-free ones. That labels and masks teach one network is
    after Bozic et al., Mixed supervision for surface-defect detection (arXiv:2104.06064).
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        grid: Sequence[int],
        name: str = "pointing",
        **kwargs: Any,
    ) -> None:
        """`shape` of the image in px and `grid` of the cells: (h, w) each."""
        super().__init__(name=name, **kwargs)
        self.shape, self.grid = tuple(shape), tuple(grid)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        defective, drawn = y_true[:, :1], ops.reshape(y_true[:, 1:], (-1, *self.shape, 1))
        loss = ops.sum(_entropy_of_logits(defective, y_pred[:, :2]), axis=1)
        step = self.shape[0] // self.grid[0], self.shape[1] // self.grid[1]
        cover = ops.reshape(ops.average_pool(drawn, step, step), (-1, 1, math.prod(self.grid)))
        cells = ops.reshape(y_pred[:, 2:], (ops.shape(y_pred)[0], -1, math.prod(self.grid)))
        on = ops.cast(cover >= _COVERED, y_pred.dtype)
        off = ops.cast(cover == 0, y_pred.dtype)
        for kind in on, off:
            error = ops.sum(_entropy_of_logits(on, cells) * kind, axis=2)
            loss = loss + ops.mean(error / ops.maximum(ops.sum(kind, axis=2), 1), axis=1)
        return loss

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": self.shape, "grid": self.grid}


def _entropy_of_logits(truth: Any, logit: Any) -> Any:
    return ops.softplus(logit) - truth * logit
