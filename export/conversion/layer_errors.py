"""Error from int8 in each layer of an ONNX network: the signal-to-noise ratio of each tensor.

SNR = -10 log10(mean over channels of min(1, noise / signal)), in dB. `own` is the noise that the
rounding of a tensor adds by itself, `total` the difference to the float network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from edge_agent.bundle.manifest import Input
from workshop.keras_models.freeze import INPUT

CLEAN_DB = 120.0
"""Ratio of a tensor without noise."""
_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")

Floats = NDArray[np.float64]
Values = NDArray[np.float32] | Floats


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """Noise of one layer, see the module.

    `own_db` is that of the worst tensor the layer reads or writes. `total_db` is that of its
    output, None if unknown.
    """

    name: str
    kind: str
    own_db: float
    total_db: float | None


def snr_db(signal: Floats, noise: Floats) -> float:
    """Return the SNR in dB from the sums of squares of all channels that have a signal."""
    # Noise is compared per channel: over a whole tensor the loudest channel would hide the loss of
    # all others, where its range is a thousand times theirs.
    there = signal > 0
    lost = np.minimum(1.0, noise[there] / signal[there])
    share = float(lost.mean()) if lost.size else 0.0
    return CLEAN_DB if share <= 0 else round(min(CLEAN_DB, max(0.0, -10 * math.log10(share))), 2)


class Sums:
    """Sums of signal and noise over inputs, by tensor name; channels lie along `axis`."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._sums: dict[str, tuple[Floats, Floats]] = {}

    def add(self, name: str, want: Values, got: Values) -> None:
        """Add the float values `want` and the int8 values `got` of a tensor, of equal shape."""
        noise = np.subtract(want, got, dtype=np.float64)
        new = _by_channel(want, self._axis), _by_channel(noise, self._axis)
        old = self._sums.get(name)
        self._sums[name] = new if old is None else (old[0] + new[0], old[1] + new[1])

    def ratios(self) -> dict[str, float]:
        """Return the SNR in dB by tensor name, as `snr_db`."""
        return {name: snr_db(*pair) for name, pair in self._sums.items()}


def worst_first(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Return the layers sorted by own noise; equal ones stay in the order of the graph."""
    # The own noise ranks: behind one bad layer the total noise of all layers is high.
    return tuple(sorted(layers, key=lambda layer: layer.own_db))


def rank(
    plain: bytes, int8: bytes, inputs: Iterable[Input], fixed: Sequence[str]
) -> tuple[Layer, ...]:
    """Rank the layers of a prepared float network and its QDQ form, worst first.

    Layers in `fixed`, which always stay float, and layers that were never quantised are left out.
    The activations of one input are in memory at a time.
    """
    float32, qdq = onnx.ModelProto.FromString(plain), onnx.ModelProto.FromString(int8)
    rounded = _rounded(qdq.graph)
    own, total = _activations(float32, qdq, rounded, inputs)
    own.update(_weights(float32.graph, qdq.graph))
    found = []
    for node in float32.graph.node:
        touched = [own[t] for t in (*node.input, *_written(node, float32.graph)) if t in own]
        if node.name not in fixed and touched:
            found.append(
                Layer(
                    name=node.name,
                    kind=node.op_type,
                    own_db=min(touched),
                    total_db=total.get(node.output[0]),
                )
            )
    return worst_first(found)


def _written(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[str]:
    """Return the node's output and that of an activation right after it: one step in int8."""
    out = node.output[0]
    after = [n for n in graph.node if out in n.input]
    if len(after) == 1 and after[0].op_type in _ACTIVATIONS:
        return [out, after[0].output[0]]
    return [out]


def _rounded(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the rounded tensors, each with its name after rounding."""
    reads = {n.input[0]: n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    return {
        n.input[0]: reads[n.output[0]]
        for n in graph.node
        if n.op_type == "QuantizeLinear" and n.output[0] in reads
    }


def _activations(
    float32: onnx.ModelProto,
    qdq: onnx.ModelProto,
    rounded: Mapping[str, str],
    inputs: Iterable[Input],
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the own and the total SNR by tensor."""
    outputs = {t for node in float32.graph.node for t in node.output}
    both = sorted(outputs & {t for node in qdq.graph.node for t in node.output})
    before = [t for t in rounded if t != INPUT]
    one = _session(float32, both)
    other = _session(qdq, [*both, *before, *rounded.values()])
    own, total = Sums(1), Sums(1)
    for x in inputs:
        plain = dict(zip(both, one.run(both, {INPUT: x}), strict=True))
        names = sorted({*both, *before, *rounded.values()})
        got = dict(zip(names, other.run(names, {INPUT: x}), strict=True)) | {INPUT: x}
        for name in both:
            total.add(name, plain[name], got[name])
        for name, after in rounded.items():
            own.add(name, got[name], got[after])
    return own.ratios(), total.ratios()


def _by_channel(values: Values, axis: int) -> Floats:
    """Return the sums of squares (channels,); one sum if the tensor has no such axis."""
    if values.ndim <= axis:
        return np.array([np.square(values, dtype=np.float64).sum()])
    rest = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    return np.asarray(np.square(values, dtype=np.float64).sum(axis=rest))


def _weights(float32: onnx.GraphProto, qdq: onnx.GraphProto) -> dict[str, float]:
    """Return the own SNR of each int8 weight, per output channel."""
    plain = {w.name: w for w in float32.initializer}
    stored = {w.name: w for w in qdq.initializer}
    found = {}
    for node in qdq.node:
        name = node.input[0].removesuffix("_quantized")
        if node.op_type != "DequantizeLinear" or node.input[0] not in stored or name not in plain:
            continue
        want = numpy_helper.to_array(plain[name]).astype(np.float64)
        whole, scale, zero = (numpy_helper.to_array(stored[n]) for n in node.input[:3])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        shape = [-1 if i == axis else 1 for i in range(want.ndim)] if scale.size > 1 else []
        got = (whole.astype(np.float64) - zero.reshape(shape)) * scale.reshape(shape)
        found[name] = snr_db(_by_channel(want, axis), _by_channel(want - got, axis))
    return found


def _session(model: onnx.ModelProto, outputs: Sequence[str]) -> onnxruntime.InferenceSession:
    """Open a session with `outputs`; optimisation is off, because it would remove some of them."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    have = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in sorted({*outputs} - have))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
