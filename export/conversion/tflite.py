"""Conversion of a Keras network to TFLite; int8 is made in `partial_int8`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from edge_agent.bundle.manifest import Input
from export.conversion.batches import Batches
from workshop.keras_models.freeze import INPUT, ServingModule
from workshop.keras_models.load import FloatNetwork


def tflite_float32(source: FloatNetwork) -> bytes:
    """Return the network as TFLite in float32."""
    with _converter(source) as converter:
        return bytes(converter.convert())


def tflite_float16(source: FloatNetwork) -> bytes:
    """Return the network with float16 weights, half the size; a CPU still computes in float32."""
    with _converter(source) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())


def tflite_dynamic(source: FloatNetwork) -> bytes:
    """Return the network with int8 weights; ranges are computed at run time, without samples."""
    with _converter(source) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return bytes(converter.convert())


@contextmanager
def int8_converter(source: FloatNetwork, batches: Batches) -> Iterator[Any]:
    """Yield TensorFlow's converter, set to int8 with ranges from the batches."""

    def representative() -> Iterator[dict[str, Input]]:
        for batch in batches:
            yield {INPUT: batch}

    with _converter(source) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        yield converter


@contextmanager
def _converter(source: FloatNetwork) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The converter opens TensorFlow's own interpreter, which warns of its deprecation.
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated")
        serving = ServingModule(source.function)
        tf.saved_model.save(serving, folder, signatures={"serving_default": serving.serve})
        yield tf.lite.TFLiteConverter.from_saved_model(folder)
