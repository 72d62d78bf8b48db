"""The seed's two networks: parameter counts, names, shapes."""

import keras
import numpy as np
import pytest

from training.networks import networks


def test_gate_has_the_seeds_parameter_count() -> None:
    assert networks.gate().count_params() == 25_685_377


def test_segmenter_has_the_seeds_parameter_count() -> None:
    assert networks.segmenter().count_params() == 1_210_276


def test_gate_body_takes_resnet50_weights_layer_by_layer() -> None:
    reference = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(256, 256, 3)
    )
    ours = networks.gate()
    for layer in reference.layers:
        if layer.weights:
            shapes = [tuple(w.shape) for w in ours.get_layer(layer.name).weights]
            assert shapes == [tuple(w.shape) for w in layer.weights], layer.name


@pytest.mark.parametrize("width", [0.125, 0.5])
def test_width_shrinks_both(width: float) -> None:
    gate = networks.gate(width=width, height_px=128, width_px=128)
    maps = networks.segmenter(width=width, height_px=64, width_px=96, classes=3)
    assert gate.output_shape == (None, 1)
    assert maps.output_shape == (None, 64, 96, 3)
    assert gate.count_params() < 25_685_377 * width
    assert maps.count_params() < 1_210_276 * width


def _body() -> keras.Model:
    image = x = keras.Input((None, None, 3))
    maps = []
    for filters in (4, 6):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", activation="relu")(x)
        maps.append(x)
    return keras.Model(image, maps)


def _given(gate: keras.Model) -> keras.Model:
    """With weights that say something, the same for all gates of one head."""
    rng = np.random.default_rng(0)
    for weight in gate.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return gate


@pytest.mark.parametrize("head", ["pooled", "mapped"])
def test_a_gate_with_a_half_turn_takes_the_mean_of_both_looks(head: str) -> None:
    body, rng = _body(), np.random.default_rng(0)
    size = {"height_px": 32, "width_px": 48, "backbone": body, "head": head}
    once, twice = (_given(networks.gate(**size, half_turn=turn)) for turn in (False, True))
    assert twice.output_shape == (None, 1)
    images = rng.uniform(size=(3, 32, 48, 3)).astype(np.float32)
    turned = np.ascontiguousarray(images[:, ::-1, ::-1])
    looks = [np.asarray(once(x, training=False)) for x in (images, turned)]
    assert not np.allclose(*looks, atol=1e-3)
    # Image by image: the batch of both looks is taken apart as it was put together.
    assert np.allclose(twice(images, training=False), np.mean(looks, axis=0), atol=1e-5)


@pytest.mark.parametrize("half_turn", [False, True])
def test_the_training_model_of_a_mapped_gate_gives_the_same_logit(half_turn: bool) -> None:
    gate = networks.gate(
        height_px=32, width_px=48, backbone=_body(), head="mapped", half_turn=half_turn
    )
    model = networks.training_model(_given(gate), half_turn=half_turn)
    # The same weights in the same order: a checkpoint of one is a checkpoint of the other.
    assert [id(w) for w in model.weights] == [id(w) for w in gate.weights]
    images = np.random.default_rng(1).uniform(size=(3, 32, 48, 3)).astype(np.float32)
    outputs = np.asarray(model(images, training=False))
    views = 2 if half_turn else 1
    assert outputs.shape == (3, 2 + views * 8 * 12)
    assert np.allclose(outputs[:, :2].sum(axis=1), np.asarray(gate(images, training=False))[:, 0])
    cells = outputs[:, 2:].reshape(3, views, 8, 12)
    pairs = (
        cells[..., 1:, 1:] + cells[..., 1:, :-1] + cells[..., :-1, 1:] + cells[..., :-1, :-1]
    ) / 4
    assert np.allclose(outputs[:, 1], pairs.max(axis=(2, 3)).mean(axis=1), atol=1e-4)
    if half_turn:
        # Both views point at the same place, each a little in its own way.
        turned = np.ascontiguousarray(images[:, ::-1, ::-1])
        other = np.asarray(model(turned, training=False))[:, 2:].reshape(3, views, 8, 12)
        assert np.allclose(cells[:, 1], other[:, 0, ::-1, ::-1], atol=1e-4)


def test_a_pooled_gate_starts_undecided() -> None:
    gate = networks.gate(height_px=32, width_px=48, backbone=_body(), head="pooled")
    assert not np.asarray(gate(np.ones((2, 32, 48, 3), np.float32), training=False)).any()
