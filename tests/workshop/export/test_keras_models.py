"""Models in every form that people have them; code in a file is refused."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf_keras

from export.conversion import onnx, tflite
from tests.support.small_models import small_gate, small_segmenter
from training.networks.losses import FocalTversky
from workshop.errors import WorkshopError
from workshop.keras_models import load
from workshop.keras_models.freeze import INPUT

_BATCH = np.random.default_rng(0).uniform(0, 1, (2, 64, 64, 3)).astype(np.float32)


def _keras_2_gate(end: str | None = "sigmoid", extra: Any = None) -> Any:
    """The seed's kind of head, small, in Keras 2."""
    tf_keras.utils.set_random_seed(5)
    layers = tf_keras.layers
    x = image = layers.Input((64, 64, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(x)))
    if extra is not None:
        x = extra(x)
    x = layers.Flatten()(layers.AveragePooling2D(4)(x))
    return tf_keras.Model(image, layers.Dense(1, activation=end)(layers.Dense(16)(x)))


def _probability(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def test_json_and_weights_as_the_seed_has_them(tmp_path: Path) -> None:
    model = _keras_2_gate()
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "weights.hdf5")
    loaded = load.load("gate", tmp_path / "model.json", tmp_path / "weights.hdf5")
    expected = model(_BATCH, training=False).numpy()
    np.testing.assert_allclose(_probability(loaded.run(_BATCH)), expected, atol=1e-6)
    session = onnxruntime.InferenceSession(onnx.onnx_float32(loaded))
    (logit,) = session.run(None, {INPUT: _BATCH[:1]})
    np.testing.assert_allclose(logit, loaded.run(_BATCH[:1]), rtol=0, atol=1e-5)
    assert loaded.note == "sigmoid at the end removed"
    # Both files make the model what it is.
    first = loaded.sha256
    (tmp_path / "model.json").write_text(model.to_json(indent=1))
    again = load.load("gate", tmp_path / "model.json", tmp_path / "weights.hdf5")
    assert again.sha256 != first


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_h5_of_keras_2_and_3(tmp_path: Path) -> None:
    old, new = _keras_2_gate(), small_gate(sigmoid="dense")
    old.save(tmp_path / "old.h5")
    new.save(tmp_path / "new.h5")
    for name, model in (("old", old), ("new", new)):
        loaded = load.load("gate", tmp_path / f"{name}.h5")
        expected = np.asarray(model(_BATCH, training=False))
        np.testing.assert_allclose(_probability(loaded.run(_BATCH)), expected, atol=1e-6)


class Own(keras.Model):
    """A model as code: no form but a SavedModel holds it without that code."""

    def __init__(self) -> None:
        super().__init__()
        self.first = keras.layers.Conv2D(4, 3, strides=4, activation="relu")
        self.last = keras.layers.Dense(1, activation="sigmoid")

    def call(self, x: Any) -> Any:
        return self.last(tf.reduce_mean(self.first(x), (1, 2)))


def test_a_subclassed_model_comes_as_a_saved_model(tmp_path: Path) -> None:
    model = Own()
    expected = np.asarray(model(_BATCH))
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, 64, 64, 3), tf.float32)]
    archive.add_endpoint("serving_default", model.call, signature)
    archive.write_out(str(tmp_path / "saved"), verbose=False)
    loaded = load.load("gate", tmp_path / "saved")
    np.testing.assert_allclose(_probability(loaded.run(_BATCH)), expected, atol=1e-6)
    assert loaded.note
    assert tflite.tflite_float32(loaded)
    session = onnxruntime.InferenceSession(onnx.onnx_float32(loaded))
    (logit,) = session.run(None, {INPUT: _BATCH[:1]})
    np.testing.assert_allclose(logit, loaded.run(_BATCH[:1]), rtol=0, atol=1e-5)
    model.save(tmp_path / "own.keras")
    with pytest.raises(WorkshopError, match=r"--gate: .*own\.keras: Keras cannot load it"):
        load.load("gate", tmp_path / "own.keras")


def test_a_loss_of_ones_own_is_left_behind(tmp_path: Path) -> None:
    def unheard_of(truth: Any, guess: Any) -> Any:
        return tf.reduce_mean(tf.abs(truth - guess))

    for name, loss in (("own", unheard_of), ("tversky", FocalTversky())):
        for suffix in ("keras", "h5"):
            model = small_segmenter()
            model.compile("nadam", loss)
            model.save(tmp_path / f"{name}.{suffix}")
            loaded = load.load("segmenter", tmp_path / f"{name}.{suffix}")
            assert loaded.output_shape == (64, 64, 4)


def _with_lambda(path: Path) -> None:
    image = keras.Input((64, 64, 3))
    x = keras.layers.Lambda(lambda x: 2 * x, output_shape=(64, 64, 3))(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    keras.Model(image, keras.layers.Dense(1)(x)).save(path)


@pytest.mark.parametrize("form", ["keras", "h5", "json"])
def test_code_runs_only_if_it_is_trusted(form: str, tmp_path: Path) -> None:
    weights = None
    path = tmp_path / f"model.{form}"
    if form == "json":
        model = _keras_2_gate(extra=tf_keras.layers.Lambda(lambda x: 2 * x))
        path.write_text(model.to_json())
        weights = tmp_path / "weights.hdf5"
        model.save_weights(weights)
    else:
        _with_lambda(path)
    with pytest.raises(WorkshopError, match=r"Lambda layer.*add --trust"):
        load.load("gate", path, weights)
    assert load.load("gate", path, weights, trust=True).run(_BATCH).shape == (2, 1)


def test_a_graph_that_reaches_out_is_refused(tmp_path: Path) -> None:
    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 64, 64, 3), tf.float32)])
        def serve(self, image: Any) -> Any:
            length = tf.strings.length(tf.io.read_file("/etc/hostname"))
            return tf.reduce_mean(image, (1, 2, 3))[:, None] + tf.cast(length, tf.float32)

    module = Reads()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(WorkshopError, match="its graph holds ReadFile, which reaches out"):
        load.load("gate", tmp_path)


def test_operators_by_name_may_be_arithmetic_only(tmp_path: Path) -> None:
    model = _keras_2_gate(extra=lambda x: tf.math.multiply(x, 2.0) + 1.0)
    weights = tmp_path / "weights.hdf5"
    model.save_weights(weights)
    path = tmp_path / "model.json"
    path.write_text(model.to_json())
    expected = np.asarray(model(_BATCH, training=False))
    got = _probability(load.load("gate", path, weights).run(_BATCH))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    path.write_text(model.to_json().replace('"math.multiply"', '"io.write_file"'))
    with pytest.raises(WorkshopError, match=r"TFOpLambda layer.*which is code"):
        load.load("gate", path, weights)


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    model = _keras_2_gate()
    architecture, weights = tmp_path / "model.json", tmp_path / "weights.hdf5"
    architecture.write_text(model.to_json())
    model.save_weights(weights)
    other = tmp_path / "other.hdf5"
    tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,))]).save_weights(other)
    broken, text = tmp_path / "broken.json", tmp_path / "text.h5"
    broken.write_text(json.dumps({"class_name": "Model"}))
    text.write_text("no model")
    (tmp_path / "empty").mkdir()
    only_weights = tmp_path / "only.weights.h5"
    model.save_weights(only_weights)
    flat = tmp_path / "flat.keras"
    keras.Sequential([keras.Input((7,)), keras.layers.Dense(1)]).save(flat)
    cases: list[tuple[Path, Path | None, str]] = [
        (architecture, None, "an architecture without weights"),
        (architecture, other, "other.hdf5"),
        (architecture, tmp_path / "none.hdf5", "no such file"),
        (broken, weights, "broken.json"),
        (weights, weights, "holds its own weights"),
        (tmp_path / "none.keras", None, "no such file"),
        (tmp_path / "empty", None, "not a SavedModel"),
        (text, None, "neither a .keras nor an .h5"),
        (only_weights, None, "weights without an architecture"),
        (flat, None, "a fixed (batch, height, width, 1 or 3) is needed"),
    ]
    for path, beside, expected in cases:
        with pytest.raises(WorkshopError) as raised:
            load.load("gate", path, beside)
        message = str(raised.value)
        assert message.startswith("--gate: "), message
        assert expected in message
        assert "\n" not in message
