"""The focal Tversky loss against values computed by hand and by numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.networks.losses import FocalTversky, MixedSupervision
from training.networks.metrics import MixedSupervisionAUC


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


def test_per_class_counts_the_classes_that_are_drawn() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((2, 8, 8, 3), np.float32)
    truth[0, :4, :, 0] = truth[0, 6:, :2, 2] = 1  # classes 1 and 3; nothing on the second image
    guess = rng.uniform(0, 1, truth.shape).astype(np.float32)

    def index(n: int, k: int) -> float:
        t, p = truth[n, :, :, k], guess[n, :, :, k]
        hit, missed, extra = (t * p).sum(), (t * (1 - p)).sum(), ((1 - t) * p).sum()
        return float((hit + 1) / (hit + 0.7 * missed + 0.3 * extra + 1))

    def image(n: int, classes: tuple[int, ...], weights: tuple[float, ...]) -> float:
        losses = [(1 - index(n, k)) ** 0.75 for k in classes]
        used = [weights[k] for k in classes]
        return sum(a * b for a, b in zip(losses, used, strict=True)) / sum(used)

    for weights in (None, (1.0, 2.0, 3.0)):
        loss = FocalTversky(smooth=1.0, per_class=True, class_weights=weights)
        w = weights or (1.0, 1.0, 1.0)
        expected = (image(0, (0, 2), w) + image(1, (0, 1, 2), w)) / 2
        assert float(loss(truth, guess)) == pytest.approx(expected, rel=1e-5)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
        assert float(again(truth, guess)) == float(loss(truth, guess))


def test_cross_entropy_is_keras_own() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.uniform(size=(2, 4, 4, 3)) > 0.5).astype(np.float32)
    guess = rng.uniform(0.01, 0.99, truth.shape).astype(np.float32)
    added = float(FocalTversky(cross_entropy=1.0)(truth, guess) - FocalTversky()(truth, guess))
    own = float(keras.losses.BinaryCrossentropy()(truth, guess))
    assert added == pytest.approx(own, rel=1e-4)


def test_dice_metric_counts_drawn_classes_only() -> None:
    from training.networks.metrics import Dice

    truth = np.zeros((3, 4, 4, 2), np.float32)
    truth[0, 0, :, 0] = 1  # 4 px, 2 of them found and 1 more: Dice 4 / 7
    guess = np.zeros_like(truth)
    guess[0, 0, :2, 0] = guess[0, 1, 0, 0] = 1
    truth[1, :2, :, 0] = guess[1, :2, :, 0] = 1  # perfect
    truth[1, :, 0, 1] = 1  # missed: this image has 0.5
    guess[2, :, :, 1] = 1  # nothing drawn here: does not count
    metric = Dice()
    metric.update_state(truth, guess)
    assert float(metric.result()) == pytest.approx((4 / 7 + 0.5) / 2)


def test_defect_cross_entropy_is_that_of_the_defect_pixels() -> None:
    truth = np.zeros((1, 4, 4, 2), np.float32)
    truth[0, 0, 0, 0] = 1  # one pixel of class 1
    guess = np.full_like(truth, 0.25)
    guess[0, 0, 0] = (0.5, 0.9)  # which class 2 claims more
    plain, on_defect = (
        float(FocalTversky(**how)(truth, guess)) - float(FocalTversky()(truth, guess))
        for how in ({"cross_entropy": 1.0}, {"defect_cross_entropy": 0.5})
    )
    on = (-np.log(0.5) - np.log(0.1)) / 2
    off = -np.log(0.75)
    assert plain == pytest.approx((on + 15 * off) / 16, rel=1e-4)
    assert on_defect == pytest.approx(0.5 * on, rel=1e-4)
    empty = np.zeros_like(truth)
    nothing = FocalTversky(defect_cross_entropy=1.0)(empty, guess) - FocalTversky()(empty, guess)
    assert float(nothing) == pytest.approx(0, abs=1e-6)


def _loss(label: float, cover: np.ndarray, logits: list[float], cells: np.ndarray) -> float:
    loss = MixedSupervision(shape=(8, 16), grid=(2, 4))
    truth = np.concatenate([[label], cover.ravel()])[None].astype(np.float32)
    return float(loss(truth, np.concatenate([logits, cells.ravel()])[None].astype(np.float32)))


def _entropy(truth: float, logit: np.ndarray | float) -> np.ndarray:
    return -(
        truth * np.log(1 / (1 + np.exp(-logit))) + (1 - truth) * np.log(1 / (1 + np.exp(logit)))
    )


def test_mixed_supervision_is_the_cross_entropy_of_both_logits_and_of_the_cells() -> None:
    cover = np.zeros((8, 16))
    cover[:4, :4] = 0.5  # the first cell is one of the defect
    cover[4, 4] = 0.9  # this cell has less than a sixteenth of one: it counts for nothing
    cells = np.random.default_rng(0).normal(0, 2, (2, 2, 4))  # of two looks
    on = [look[0, 0] for look in cells]
    off = [np.delete(look.ravel(), [0, 5]) for look in cells]
    want = _entropy(1, 1.5) + _entropy(1, -0.5)
    want += np.mean([_entropy(1, a) + _entropy(0, b).mean() for a, b in zip(on, off, strict=True)])
    assert _loss(1, cover, [1.5, -0.5], cells) == pytest.approx(float(want), rel=1e-5)


def test_mixed_supervision_ignores_the_cells_if_the_mask_is_unknown() -> None:
    want = float(_entropy(1, 1.5) + _entropy(1, -0.5))
    cells = np.full((1, 2, 4), 9.0)
    assert _loss(1, np.full((8, 16), -1.0), [1.5, -0.5], cells) == pytest.approx(want, rel=1e-5)
    # On a defect-free image all cells are defect-free.
    defect_free = float(_entropy(0, 1.5) + _entropy(0, -0.5) + _entropy(0, 9.0))
    assert _loss(0, np.zeros((8, 16)), [1.5, -0.5], cells) == pytest.approx(defect_free, rel=1e-5)


def test_mixed_supervision_round_trip_and_its_curve_is_of_the_sum() -> None:
    loss = MixedSupervision(shape=(8, 16), grid=(2, 4))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    area = MixedSupervisionAUC(from_logits=True)
    truth = np.array([[0, 9], [1, 9]], np.float32)
    area.update_state(truth, np.array([[-3, 1, 50], [3, -1, -50]], np.float32))
    assert float(area.result()) == pytest.approx(1, abs=0.01)
