"""One network in four forms: ONNX and TFLite, each as float32 and int8.

Each function returns the file's bytes. `batches` are inputs as the line would make them, float32
(1, h, w, c); they set the ranges of int8 and must show every class of defect.
"""

from __future__ import annotations

import platform
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
    shape_inference,
)

from export.source import Source

Batches = Sequence[NDArray[np.float32]]

INPUT, OUTPUT = "image", "output"
_OPSET = 17


def _serving(source: Source) -> Any:
    """The model as a function of one frame, with names that both converters keep."""
    shape = (1, source.spec.height, source.spec.width, source.spec.channels)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name=INPUT)])  # type: ignore[untyped-decorator]
    def serve(image: Any) -> dict[str, Any]:
        return {OUTPUT: source.model(image, training=False)}

    return serve


def onnx_float32(source: Source) -> bytes:
    serve = _serving(source)
    model, _ = tf2onnx.convert.from_function(
        serve, input_signature=serve.input_signature, opset=_OPSET
    )
    model.graph.doc_string = ""  # a counter of this process: the same model, the same bytes
    _name_weights_in_order(model.graph)
    # from_function names things after the graph; the bundle promises INPUT and OUTPUT.
    for value, name in ((model.graph.input[0], INPUT), (model.graph.output[0], OUTPUT)):
        _rename(model.graph, value.name, name)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def onnx_int8(float32: bytes, source: Source, batches: Batches) -> bytes:
    """Static QDQ, weights per channel. The last layer, and a sigmoid after it, stay float.

    On x86 weights lose one bit (reduce_range): without VNNI, u8 x s8 sums saturate there.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, ready, out = (Path(folder) / n for n in ("plain.onnx", "ready.onnx", "int8.onnx"))
        plain.write_bytes(float32)
        shape_inference.quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(out),
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=platform.machine() == "x86_64",
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_tail(onnx.load(ready).graph),
        )
        return out.read_bytes()


def tflite_float32(source: Source) -> bytes:
    return bytes(_convert(source, None))


def tflite_int8(source: Source, batches: Batches) -> bytes:
    """Full int8 between float input and output; the gate's dense layers stay float."""
    return bytes(_convert(source, batches))


def _convert(source: Source, batches: Batches | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The converter opens TensorFlow's own interpreter, which announces its retirement.
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated")
        # Keras' own exporter tracks the model's variables; tf.saved_model.save of a Keras 3 model
        # does not, and the converter then writes a file without weights.
        archive = keras.export.ExportArchive()
        archive.track(source.model)
        serve = _serving(source)
        archive.add_endpoint("serving_default", serve)
        serve.get_concrete_function()
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if batches is None:
            return bytes(converter.convert())

        def representative() -> Iterator[dict[str, NDArray[np.float32]]]:
            for batch in batches:
                yield {INPUT: batch}

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        if source.stage != "gate":
            return bytes(converter.convert())
        return _with_float_head(converter, representative)


def _with_float_head(converter: Any, representative: Any) -> bytes:
    """A gate whose dense layers are not quantised: its logit then has no steps."""
    debug = tf.lite.experimental
    options = debug.QuantizationDebugOptions(denylisted_ops=["FULLY_CONNECTED"])
    debugger = debug.QuantizationDebugger(
        converter=converter, debug_dataset=representative, debug_options=options
    )
    return bytes(debugger.get_nondebug_quantized_model())


def _tail(graph: onnx.GraphProto) -> list[str]:
    """The nodes from the last layer with weights to the output."""
    by_output = {name: node for node in graph.node for name in node.output}
    tail, at = [], by_output.get(graph.output[0].name)
    while at is not None:
        tail.append(at.name)
        if at.op_type in ("Conv", "Gemm", "MatMul"):
            break
        at = by_output.get(at.input[0])
    return tail


def _name_weights_in_order(graph: onnx.GraphProto) -> None:
    """tf2onnx names and orders weights by the order of a set, which differs in every process."""
    names: dict[str, str] = {}
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in weights:
                node.input[index] = names.setdefault(name, f"weight_{len(names)}")
    ordered = [weights[name] for name in names]
    for weight in ordered:
        weight.name = names[weight.name]
    copies = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in ordered]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Batches) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}
