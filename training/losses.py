"""Losses for masks: binary cross-entropy plus the focal Tversky loss, safe in float32."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def tversky_index(truth: Any, probability: Any, *, alpha: float, beta: float, smooth: float) -> Any:
    """Tversky index per sample over all pixels and classes, in [0, 1].

    TP / (TP + alpha FN + beta FP) as in Abraham and Khan, arXiv:1810.07842, eq. 3; `smooth` is
    added above and below, so that an empty mask rightly predicted empty scores 1.
    """
    axes = (1, 2, 3)
    hit = ops.sum(truth * probability, axis=axes)
    missed = ops.sum(truth * (1 - probability), axis=axes)
    extra = ops.sum((1 - truth) * probability, axis=axes)
    return (hit + smooth) / (hit + alpha * missed + beta * extra + smooth)


@keras.saving.register_keras_serializable(package="linegate")
class FocalTversky(keras.losses.Loss):  # type: ignore[misc]
    """(1 - Tversky index)^gamma. The seed's values: alpha 0.7, beta 0.3, gamma 0.75.

    `cross_entropy` adds that much mean binary cross-entropy, which keeps a gradient on images
    whose masks are empty, where the Tversky index has next to none.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.7,
        beta: float = 0.3,
        gamma: float = 0.75,
        smooth: float = 1e-6,
        cross_entropy: float = 0.0,
        name: str = "focal_tversky",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.smooth, self.cross_entropy = smooth, cross_entropy

    def call(self, y_true: Any, y_pred: Any) -> Any:
        index = tversky_index(y_true, y_pred, alpha=self.alpha, beta=self.beta, smooth=self.smooth)
        # The derivative of x**0.75 at 0 is infinite: keep a hair's breadth away from it.
        loss = ops.power(ops.maximum(1 - index, 1e-7), self.gamma)
        if self.cross_entropy:
            entropy = keras.losses.binary_crossentropy(y_true, y_pred)
            loss = loss + self.cross_entropy * ops.mean(entropy, axis=(1, 2))
        return loss

    def get_config(self) -> dict[str, Any]:
        own = ("alpha", "beta", "gamma", "smooth", "cross_entropy")
        return {**super().get_config(), **{k: getattr(self, k) for k in own}}
