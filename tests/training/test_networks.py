"""The seed's two networks: parameter counts, names, shapes."""

import keras
import pytest

from training import networks


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
