"""Headless bodies: the committed kinds, and what is refused."""

from pathlib import Path

import keras
import numpy as np
import pytest

from training.networks import backbones, networks
from workshop.errors import WorkshopError


def _body(strides: int = 4) -> keras.Model:
    image = x = keras.Input((None, None, 3), name="image")
    for k in range(strides):
        x = keras.layers.Conv2D(8 + k, 3, 2, padding="same", activation="relu")(x)
    return keras.Model(image, x, name="body")


def test_resnet50_takes_rgb_in_0_to_1_where_keras_wants_blue_first() -> None:
    ours = backbones.resnet50(None)
    theirs = keras.applications.ResNet50(include_top=False, weights=None)
    for layer in theirs.layers:
        if layer.weights:
            kernel, *rest = ours.get_layer(layer.name).get_weights()
            layer.set_weights([kernel[:, :, ::-1] if layer.name == "conv1_conv" else kernel, *rest])
    rgb = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    wanted = theirs(keras.applications.resnet50.preprocess_input(rgb.copy()), training=False)
    got = ours(rgb / 255, training=False)
    assert np.allclose(got, wanted, rtol=1e-3, atol=1e-3 * float(np.abs(wanted).max()))


def test_taps_are_the_ends_of_the_stages() -> None:
    encoder = backbones.taps(backbones.resnet50(None), 64, 96)
    assert [tuple(o.shape[1:3]) for o in encoder(np.zeros((1, 64, 96, 3), np.float32))] == [
        (32, 48),
        (16, 24),
        (8, 12),
        (4, 6),
    ]
    assert [o.shape[3] for o in encoder.outputs] == [64, 256, 512, 1024]


def test_both_networks_stand_on_a_body(tmp_path: Path) -> None:
    _body().save(tmp_path / "body.keras")
    body = backbones.load(str(tmp_path / "body.keras"))
    assert body is not None
    for head in ("seed", "pooled"):
        encoder = backbones.taps(body, 64, 64) if head == "pooled" else body
        gate = networks.gate(height_px=64, width_px=64, backbone=encoder, head=head)
        assert gate(np.zeros((2, 64, 64, 3), np.float32)).shape == (2, 1)
    maps = networks.segmenter(
        width=0.25, height_px=32, width_px=64, classes=3, backbone=backbones.taps(body, 32, 64)
    )
    assert maps(np.zeros((2, 32, 64, 3), np.float32)).shape == (2, 32, 64, 3)


def test_what_is_no_body_is_refused_in_one_line(tmp_path: Path) -> None:
    networks.gate(width=0.0625, height_px=128, width_px=128).save(tmp_path / "head.keras")
    (tmp_path / "text.keras").write_text("no model")
    for name, why in (("head.keras", "headless"), ("text.keras", "Keras cannot load it")):
        with pytest.raises(WorkshopError, match=why) as raised:
            backbones.load(str(tmp_path / name))
        assert "\n" not in str(raised.value)
    with pytest.raises(WorkshopError, match="no maps at stride 16"):
        backbones.taps(_body(3), 64, 64)
    assert backbones.load("none") is None


def test_imagenet_weights_that_cannot_be_fetched_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keras.config, "keras_home", lambda: str(tmp_path), raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(
        WorkshopError, match="--backbone imagenet: the weights cannot be downloaded"
    ):
        backbones.load("imagenet")


def test_the_real_backbone(shared_data: Path) -> None:
    body = backbones.load(str(next((shared_data / "backbones").glob("*.keras"))))
    assert body is not None
    encoder = backbones.taps(body, 64, 64)
    assert [o.shape[3] for o in encoder.outputs] == [64, 256, 512, 1024]
