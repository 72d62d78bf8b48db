"""The focal Tversky loss against values computed by hand and by numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.losses import FocalTversky


def _batch(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, -1, 1)


def test_reference_value() -> None:
    truth, guess = _batch([1, 1, 0, 0]), _batch([0.8, 0.4, 0.3, 0.0])
    # TP 1.2, FN 0.8, FP 0.3: index 1.2 / (1.2 + 0.7 * 0.8 + 0.3 * 0.3)
    index = 1.2 / 1.85
    assert float(FocalTversky()(truth, guess)) == pytest.approx((1 - index) ** 0.75, rel=1e-5)


def test_soft_dice_is_a_special_case() -> None:
    truth, guess = _batch([1, 1, 0, 0]), _batch([0.8, 0.4, 0.3, 0.0])
    loss = FocalTversky(alpha=0.5, beta=0.5, gamma=1.0, smooth=0.0)
    assert float(loss(truth, guess)) == pytest.approx(1 - 2 * 1.2 / (2 + 1.5), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradient_is_finite_where_prediction_is_perfect(value: float) -> None:
    truth = tf.constant(_batch([value] * 4))
    guess = tf.Variable(truth)
    with tf.GradientTape() as tape:
        loss = FocalTversky(cross_entropy=1.0)(truth, guess)
    assert np.isfinite(tape.gradient(loss, guess).numpy()).all()
    assert float(loss) == pytest.approx(0, abs=1e-3)


def test_missing_costs_more_than_inventing_with_the_seeds_weights() -> None:
    truth = _batch([1, 1, 0, 0])
    missing, inventing = _batch([1, 0, 0, 0]), _batch([1, 1, 1, 0])
    assert float(FocalTversky()(truth, missing)) > float(FocalTversky()(truth, inventing))


def test_config_round_trip() -> None:
    loss = FocalTversky(alpha=0.6, cross_entropy=0.5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
