"""Scale and offset of each channel, rewritten as a depthwise 1x1 convolution. Pure.

A batch norm without a convolution before it (after a residual sum) stays a product and a sum. In
int8 all its scales share one step; a convolution has a step per channel and a 32-bit offset.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Floats = NDArray[np.float32]
Constants = Mapping[str, Floats]


def as_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each such product and sum in `model` by a depthwise convolution; return `model`."""
    graph = model.graph
    constants = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    nodes, gone = [], set()
    for node in graph.node:
        after = readers.get(node.output[0], [])
        alone = len(after) == 1 and node.output[0] not in outputs
        scale = _by_channel(node, "Mul", constants)
        offset = _by_channel(after[0], "Add", constants) if scale and alone else None
        if scale is None or offset is None:
            nodes.append(node)
            continue
        gone.add(after[0].name)
        weights = numpy_helper.from_array(scale[1].reshape(-1, 1, 1, 1), f"{node.name}/scale")
        biases = numpy_helper.from_array(offset[1].reshape(-1), f"{node.name}/offset")
        graph.initializer.extend((weights, biases))
        nodes.append(
            helper.make_node(
                "Conv",
                [scale[0], weights.name, biases.name],
                [after[0].output[0]],
                node.name,
                group=scale[1].size,
                kernel_shape=[1, 1],
            )
        )
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes if n.name not in gone]
    del graph.node[:]
    graph.node.extend(kept)
    without_unused(graph)
    return model


def _by_channel(node: onnx.NodeProto, kind: str, constants: Constants) -> tuple[str, Floats] | None:
    """Return the input's name and the constant (1, channels, 1, 1), or None for any other node."""
    if node.op_type != kind:
        return None
    for index, name in enumerate(node.input):
        value = constants.get(name)
        if value is not None and value.ndim == 4 and value.size == value.shape[1] > 1:
            return node.input[1 - index], value
    return None


def without_unused(graph: onnx.GraphProto) -> None:
    """Remove the initializers from `graph` that no node reads."""
    read = {name for node in graph.node for name in node.input}
    left = [onnx.TensorProto.FromString(w.SerializeToString()) for w in graph.initializer]
    del graph.initializer[:]
    graph.initializer.extend(w for w in left if w.name in read)
