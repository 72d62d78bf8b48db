"""Conversion of one network to ONNX: float32, float16, int8. Each returns the file's bytes.

`batches` are inputs as the line prepares them, (1, h, w, c), tiles where the line cuts tiles. They
set the int8 ranges, must show every class of defect, and are iterated more than once.
"""

from __future__ import annotations

import inspect
import math
import os
import tempfile
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Literal

import onnx
import tf2onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    calibrate,
    create_calibrator,
    quantize_static,
    shape_inference,
)

from edge_agent.bundle.manifest import Input
from export.conversion import equalise, fold_scale
from export.conversion.batches import Batches
from workshop.keras_models.freeze import INPUT, OUTPUT
from workshop.keras_models.load import FloatNetwork

_OPSET = 17
_TF2ONNX_CATCHES = "TF2ONNX_CATCH_ERRORS"
# Older versions of onnxruntime run the network again for each form.
_CAN_KEEP_RANGES = "calibration_cache_path" in inspect.signature(quantize_static).parameters
_PERCENTILE, _LOOKED_AT = 99.999, 40
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def onnx_float32(source: FloatNetwork) -> bytes:
    """Return the network as ONNX in float32, with the same bytes in every process."""
    (given,), (result,) = source.function.inputs, source.function.outputs
    # Otherwise tf2onnx copies the graph with all weights before each of its steps, to restore it if
    # the step fails: gigabytes for a ResNet50.
    os.environ[_TF2ONNX_CATCHES] = "FALSE"
    try:
        # The graph is frozen already: from_function would freeze it again and keep both.
        model, _ = tf2onnx.convert.from_graph_def(
            source.function.graph.as_graph_def(),
            input_names=[given.name],
            output_names=[result.name],
            opset=_OPSET,
        )
    finally:
        del os.environ[_TF2ONNX_CATCHES]
    model.graph.doc_string = ""
    _name_weights_in_order(model.graph)
    for value, name in ((model.graph.input[0], INPUT), (model.graph.output[0], OUTPUT)):
        _rename(model.graph, value.name, name)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def onnx_float16(float32: bytes) -> bytes:
    """Return the network in float16, half the size, with float32 input and output.

    It is meant for GPUs: a CPU gains nothing by it.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.ModelProto.FromString(float32)
    with warnings.catch_warnings():
        # Weights too small for float16 become its smallest number; the converter warns for each.
        warnings.filterwarnings("ignore", "(?s).*truncated", UserWarning)
        half = convert_float_to_float16(model, keep_io_types=True)
    return bytes(half.SerializeToString())


def onnx_ready(float32: bytes, batches: Batches) -> bytes:
    """Return the float network prepared for the quantiser.

    Shapes are known, batch norms folded and channel ranges equalised; each node has a unique name,
    so that it can be excluded by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, ready = (Path(folder) / n for n in ("plain.onnx", "ready.onnx"))
        plain.write_bytes(float32)
        shape_inference.quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        model = onnx.load(ready)
    names = [node.name for node in model.graph.node]
    for index, node in enumerate(model.graph.node):
        if not node.name or names.count(node.name) > 1:
            node.name = f"{node.op_type}_{index}"
    return bytes(equalise.equalised(fold_scale.as_convolutions(model), batches).SerializeToString())


def onnx_int8(
    ready: bytes,
    batches: Batches,
    cpu: Literal["x86_64", "aarch64"],
    exclude: Iterable[str] = (),
    ranges: Path | None = None,
) -> bytes:
    """Return the network of `onnx_ready` in int8: static QDQ, weights per channel.

    The nodes of `onnx_fixed` stay float. An older onnxruntime, which cannot read ranges from a
    file, uses the full range of each activation.

    Args:
        ready: The result of `onnx_ready`.
        batches: Inputs that set the ranges of the activations.
        cpu: Target architecture. On x86 weights lose one bit (reduce_range), because u8 x s8 sums
            saturate there without VNNI.
        exclude: Names of further nodes that stay float.
        ranges: File to keep the ranges in: the next call with the same batches need not run the
            network again.
    """
    method, cache = CalibrationMethod.MinMax, dict[str, Path]()
    with tempfile.TemporaryDirectory() as folder:
        plain, out = (Path(folder) / n for n in ("ready.onnx", "int8.onnx"))
        plain.write_bytes(ready)
        if _CAN_KEEP_RANGES:
            method = CalibrationMethod.Percentile
            cache["calibration_cache_path"] = ranges or Path(folder) / "ranges.json"
            if not cache["calibration_cache_path"].exists():
                _find_ranges(plain, batches, cache["calibration_cache_path"])
        quantize_static(
            str(plain),
            str(out),
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=cpu == "x86_64",
            activation_type=QuantType.QUInt8 if cpu == "x86_64" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            nodes_to_exclude=[*onnx_fixed(ready), *exclude],
            **cache,
        )
        return out.read_bytes()


def _find_ranges(network: Path, batches: Batches, file: Path) -> None:
    """Write the range of each activation to `file`, without the outermost hundred-thousandth.

    The few values beyond it are clipped to the end of the range; including them would make all
    steps several times as coarse.
    """
    count = sum(1 for _ in batches)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        calibrator = create_calibrator(
            str(network),
            augmented_model_path=str(Path(folder) / "watched.onnx"),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"percentile": _PERCENTILE, "symmetric": False, "num_bins": 2048},
        )
        # One batch at a time: the calibrator keeps all activations of its input in memory.
        for batch in islice(batches, 0, None, max(1, math.ceil(count / _LOOKED_AT))):
            calibrator.collect_data(_Reader([batch]))
        calibrate.save_tensors_data(calibrator.compute_data(), file)


def onnx_fixed(ready: bytes) -> list[str]:
    """Return the nodes that always stay float.

    These are the scaling of the image before the first layer with weights, global pools and all
    nodes behind them, and all nodes from the last layer with weights to the output. They cost next
    to nothing, and no later layer can correct their rounding error.
    """
    graph = onnx.ModelProto.FromString(ready).graph
    return list(dict.fromkeys((*_scaling(graph), *_pooled(graph), *_tail(graph))))


def _scaling(graph: onnx.GraphProto) -> list[str]:
    constants = {weight.name for weight in graph.initializer}
    names, image = [], {graph.input[0].name}
    for node in graph.node:
        if node.op_type not in _WEIGHTED and {*node.input} - constants <= image:
            names.append(node.name)
            image.update(node.output)
    return names


def _pooled(graph: onnx.GraphProto) -> list[str]:
    names, pooled = [], set[str]()
    for node in graph.node:
        if node.op_type.startswith("Global") or pooled & {*node.input}:
            names.append(node.name)
            pooled.update(node.output)
    return names


def _tail(graph: onnx.GraphProto) -> list[str]:
    by_output = {name: node for node in graph.node for name in node.output}
    tail, at = [], by_output.get(graph.output[0].name)
    while at is not None:
        tail.append(at.name)
        if at.op_type in _WEIGHTED:
            break
        at = by_output.get(at.input[0])
    return tail


def _name_weights_in_order(graph: onnx.GraphProto) -> None:
    """Name and order the weights by first use.

    tf2onnx names and orders them by the order of a set, which differs in every process.
    """
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

    def get_next(self) -> dict[str, Input] | None:
        """Return the next batch by input name, or None after the last one."""
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}
