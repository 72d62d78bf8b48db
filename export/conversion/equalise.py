"""Equalisation of channel ranges of an ONNX network, so that one int8 step per tensor fits all.

Scaling 1/s at the source and s at the reader is exact in float for s > 0 and f(s x) = s f(x) (Nagel
et al., arXiv:1906.04721). Share of the range moved to the weights: Xiao et al., arXiv:2211.10438.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_agent.bundle.manifest import Input
from export.conversion.fold_scale import without_unused
from workshop.keras_models.freeze import INPUT

# Positively homogeneous operators, f(s x) = s f(x), that keep their channels. Activations are
# rounded per tensor: a channel a hundred times smaller than the largest keeps two or three levels.
# Channels that meet in a sum, and those passed on by a ReLU, share one s: they form a class. A
# class that reaches any other operator, or the network's output, is not scaled.
_HAND_ON = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "Identity")
_SHARE = 0.5
"""SmoothQuant's alpha: share of an activation's range that is moved to the weights behind it."""
_LEAST = 1e-3
"""Limit of the scaling: a channel that is almost always 0 is amplified at most a thousandfold."""

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Weights = Mapping[str, NDArray[Any]]


def equalised(model: onnx.ModelProto, batches: Iterable[Input]) -> onnx.ModelProto:
    """Equalise `model` in place and return it; `batches`, each (1, h, w, c), give the ranges."""
    graph = model.graph
    weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    classes = _classes(graph, weights)
    free = {i for i in np.unique(np.concatenate([*classes.values(), [-1]])) if i >= 0}
    if not free:
        return model
    size, read = np.zeros(max(free) + 1), np.zeros(max(free) + 1)
    for name, largest in _largest(model, _rounded(graph, classes), batches).items():
        _take(size, classes[name], largest)
    dense = np.zeros(size.size, np.bool_)
    for node in graph.node:
        if _channels(node, weights) and node.input[0] in classes and not _depthwise(node):
            kernel = np.abs(weights[node.input[1]])
            kernel = kernel / np.maximum(kernel.max(axis=(1, 2, 3), keepdims=True), 1e-30)
            _take(read, classes[node.input[0]], kernel.max(axis=(0, 2, 3)))
            there = classes[node.input[0]]
            dense[there[there >= 0]] = True
    share = np.where(dense, _SHARE, 1.0)
    scale = np.maximum(size, _LEAST) ** share / np.maximum(read, _LEAST) ** (1 - share)
    scale[size == 0] = 1.0
    _rescale(graph, weights, classes, np.append(scale, 1.0).astype(np.float32))
    return model


def _classes(graph: onnx.GraphProto, weights: Weights) -> dict[str, Ids]:
    """Return the class of each channel by tensor that can be scaled, -1 for a fixed channel."""
    numbers: dict[str, Ids] = {}
    parents: list[int] = []
    fixed = [value.name for value in graph.output]
    for node in graph.node:
        given = [name for name in node.input if name and name not in weights]
        count = _channels(node, weights)
        handed = None if count else _handed_on(node, [numbers.get(n) for n in given], weights)
        if count:
            numbers[node.output[0]] = np.arange(len(parents), len(parents) + count)
            parents += range(len(parents), len(parents) + count)
        elif handed is None:
            fixed += given
        else:
            numbers[node.output[0]] = handed[0]
            for one in handed[1:]:
                for a, b in zip(handed[0], one, strict=True):
                    parents[_root(parents, int(a))] = _root(parents, int(b))
    roots = np.array([_root(parents, i) for i in range(len(parents))], np.int64)
    for name in fixed:
        if name in numbers:
            roots[np.isin(roots, roots[numbers[name]])] = -1
    return {name: roots[ids] for name, ids in numbers.items()}


def _root(parents: list[int], at: int) -> int:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = parents[at]
    return at


def _channels(node: onnx.NodeProto, weights: Weights) -> int:
    """Return the channels of a convolution (plain or depthwise) with known weights, otherwise 0."""
    if node.op_type != "Conv" or any(name not in weights for name in node.input[1:]):
        return 0
    kernel = weights[node.input[1]]
    if kernel.ndim != 4 or _attribute(node, "group", 1) not in (1, kernel.shape[0]):
        return 0
    return int(kernel.shape[0]) if _attribute(node, "group", 1) == 1 or kernel.shape[1] == 1 else 0


def _depthwise(node: onnx.NodeProto) -> bool:
    return bool(_attribute(node, "group", 1) > 1)


def _handed_on(
    node: onnx.NodeProto, given: Sequence[Ids | None], weights: Weights
) -> list[Ids] | None:
    """Return class numbers, equal channel by channel in all arrays; the first is the output's.

    Returns None if the node is not homogeneous or one of its inputs has no class numbers.
    """
    known = [ids for ids in given if ids is not None]
    if len(known) < len(given) or not known or len(node.output) != 1:
        return None
    kind, constants = node.op_type, [weights[n] for n in node.input if n in weights]
    if kind == "Concat" and _attribute(node, "axis", 0) == 1:
        return [np.concatenate(known)]
    if kind == "Add" and len(known) == 2 and known[0].size == known[1].size:
        return known
    if kind == "Pad" and len(known) == 1 and constants:
        pads, level = constants[0], constants[1:]
        if pads.size == 8 and not pads[[0, 1, 4, 5]].any() and not any(v.any() for v in level):
            return known
    if kind == "Resize" and len(known) == 1:
        scales = [v for v in constants if v.size == 4 and v.dtype == np.float32]
        if len(scales) == 1 and (scales[0][:2] == 1).all():
            return known
    return known if kind in _HAND_ON and len(known) == 1 else None


def _rounded(graph: onnx.GraphProto, classes: Mapping[str, Ids]) -> list[str]:
    """Return the tensors that int8 rounds.

    A tensor read only by a ReLU is left out: in int8 the two are one step with the ReLU's range.
    """
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    return [n for n, ids in classes.items() if (ids >= 0).any() and readers.get(n) != {"Relu"}]


def _largest(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[Input]
) -> dict[str, Floats]:
    """Return the largest magnitude of each channel over all batches, (channels,), by tensor."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    # Reduced inside the graph: the full tensors would take gigabytes.
    results = {name: f"{name}/largest" for name in names}
    for name, result in results.items():
        copy.graph.node.append(helper.make_node("Abs", [name], [f"{name}/magnitude"]))
        copy.graph.node.append(
            helper.make_node(
                "ReduceMax", [f"{name}/magnitude"], [result], axes=[0, 2, 3], keepdims=0
            )
        )
        copy.graph.output.append(onnx.ValueInfoProto(name=result))
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: dict[str, Floats] = {}
    for batch in batches:
        answers = session.run([*results.values()], {INPUT: batch})
        for name, seen in zip(results, answers, strict=True):
            found[name] = np.maximum(found[name], seen) if name in found else seen
    return found


def _take(into: NDArray[np.float64], ids: Ids, values: Floats) -> None:
    """Update `into` with each channel's share of its tensor's largest value, where it is larger."""
    if (most := values.max()) > 0:
        np.maximum.at(into, ids[ids >= 0], values[ids >= 0] / most)


def _rescale(
    graph: onnx.GraphProto, weights: Weights, classes: Mapping[str, Ids], scale: Floats
) -> None:
    """Apply `scale`, indexed by class; its last entry is 1, for class -1."""
    for node in graph.node:
        if not _channels(node, weights):
            continue
        new = [weights[name].astype(np.float32) for name in node.input[1:]]
        out = scale[classes[node.output[0]]]
        new = [value / out.reshape(-1, *[1] * (value.ndim - 1)) for value in new]
        if node.input[0] in classes:
            shape = (-1, 1, 1, 1) if _depthwise(node) else (1, -1, 1, 1)
            new[0] = new[0] * scale[classes[node.input[0]]].reshape(shape)
        for index, value in enumerate(new, start=1):
            # A copy per node: two convolutions may share their weights.
            name = f"{node.name}/{index}"
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
            node.input[index] = name
    without_unused(graph)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
