"""Network in int8, converted repeatedly with more and more layers left in float.

Ranges are computed once: a run of the float network over all samples takes minutes, a rewrite of
the graph takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import tensorflow as tf

from export.conversion import batches as conversion_batches
from export.conversion import onnx, tflite, tflite_layer_errors
from export.conversion.layer_errors import Layer, rank
from workshop.keras_models.load import FloatNetwork

_LOOKED_AT = 8
"""Number of inputs on which the layers are ranked."""


class Int8(Protocol):
    """Converter of one network to int8, with some layers left in float."""

    def make(self, kept_float: Sequence[str]) -> bytes:
        """Return the file with these layers left in float, in addition to those that always are."""
        ...

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers that int8 converts if none is left in float, worst first."""
        ...


class OnnxInt8:
    """Int8 form in ONNX; `folder` stores the ranges and can be shared between CPUs."""

    def __init__(
        self,
        float32: bytes,
        batches: conversion_batches.Batches,
        cpu: Literal["x86_64", "aarch64"],
        folder: Path,
    ) -> None:
        self._ready, self._batches, self._cpu = onnx.onnx_ready(float32, batches), batches, cpu
        self._ranges = folder / "ranges.json"
        self._plain = b""

    def make(self, kept_float: Sequence[str]) -> bytes:
        """Return the file with these layers left in float, in addition to those of `onnx_fixed`."""
        if kept_float:
            return self._made(kept_float)
        self._plain = self._plain or self._made(())
        return self._plain

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers that int8 converts, worst first."""
        fixed = onnx.onnx_fixed(self._ready)
        return rank(self._ready, self.make(()), islice(self._batches, _LOOKED_AT), fixed)

    def _made(self, kept_float: Sequence[str]) -> bytes:
        return onnx.onnx_int8(self._ready, self._batches, self._cpu, kept_float, self._ranges)


class TfliteInt8:
    """Int8 form in TFLite; layers are named by their output tensors."""

    def __init__(
        self, source: FloatNetwork, debugger: Any, batches: conversion_batches.Batches
    ) -> None:
        """Store `debugger`, which holds the network with its ranges."""
        self._source, self._debugger, self._batches = source, debugger, batches

    def make(self, kept_float: Sequence[str]) -> bytes:
        """Return the file with these layers left in float, in addition to a gate's dense layers."""
        self._debugger.options = _options(self._source, kept_float)
        return bytes(self._debugger.get_nondebug_quantized_model())

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers that int8 converts, worst first."""
        float32 = tflite.tflite_float32(self._source)
        return tflite_layer_errors.rank(float32, self.make(()), islice(self._batches, _LOOKED_AT))


@contextmanager
def tflite_int8(source: FloatNetwork, batches: conversion_batches.Batches) -> Iterator[TfliteInt8]:
    """Compute the ranges of a network and yield its int8 form.

    A gate's dense layers stay float, so that its logit is not quantised.
    """
    with tflite.int8_converter(source, batches) as converter:
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=converter.representative_dataset,
            debug_options=_options(source, ()),
        )
        yield TfliteInt8(source, debugger, batches)


def _options(source: FloatNetwork, kept_float: Sequence[str]) -> Any:
    return tf.lite.experimental.QuantizationDebugOptions(
        denylisted_ops=list(conversion_batches.FLOAT_HEAD) if source.stage == "gate" else None,
        denylisted_nodes=list(kept_float) or None,
    )
