"""Networks rewritten for int8: the same in float, and less is lost when they are rounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.conversion import equalise, fold_scale
from export.conversion import onnx as convert
from workshop.keras_models.freeze import INPUT, OUTPUT

Floats = NDArray[np.float32]
SIZE = 12
RNG = np.random.default_rng(5)
BATCHES = [RNG.normal(size=(1, 3, SIZE, SIZE)).astype(np.float32) for _ in range(4)]
# From loud to all but silent.
SPREAD = np.array([1.0, 0.3, 0.03, 0.002], np.float32)


def kernel(*shape: int, scale: Floats | float = 1.0) -> Floats:
    values = RNG.normal(size=shape).astype(np.float32)
    return np.asarray(values * np.reshape(scale, (-1, *[1] * (len(shape) - 1))), np.float32)


def network(nodes: Sequence[onnx.NodeProto], size: int = SIZE, **constants: Any) -> onnx.ModelProto:
    shape = [1, 3, size, size]
    graph = helper.make_graph(
        [
            onnx.NodeProto.FromString(n.SerializeToString()) if n.name else _named(n, i)
            for i, n in enumerate(nodes)
        ],
        "test",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def _named(node: onnx.NodeProto, index: int) -> onnx.NodeProto:
    node.name = f"n{index}"
    return node


def conv(reads: str, gives: str, weights: str, bias: str = "", **how: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [reads, weights, *filter(None, [bias])], [gives], **how)


def op(kind: str, reads: str, gives: str, **how: Any) -> onnx.NodeProto:
    return helper.make_node(kind, reads.split(), [gives], **how)


def run(model: onnx.ModelProto, names: Sequence[str] = (OUTPUT,)) -> list[Floats]:
    """The tensors of each batch, one after the other."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n != OUTPUT)
    session = onnxruntime.InferenceSession(copy.SerializeToString())
    return [one for batch in BATCHES for one in session.run([*names], {INPUT: batch})]


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return all(
        np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(run(one), run(other), strict=True)
    )


def spread(model: onnx.ModelProto, tensor: str) -> float:
    """How many times larger the loudest channel is than the quietest."""
    largest = np.max([np.abs(t).max(axis=(0, 2, 3)) for t in run(model, [tensor])], axis=0)
    return float(largest.max() / largest.min())


def weights(model: onnx.ModelProto) -> dict[str, Floats]:
    """Kernels and biases by the node that has them and their place there."""
    values = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    return {
        f"{n.name}/{i}": values[name]
        for n in model.graph.node
        for i, name in enumerate(n.input)
        if name in values and n.op_type == "Conv"
    }


FIRST = {"w0": kernel(4, 3, 3, 3, scale=SPREAD), "b0": kernel(4, scale=SPREAD)}
LAST = {"w9": kernel(2, 4, 1, 1), "b9": kernel(2)}
BEGIN = conv(INPUT, "a", "w0", "b0", pads=[1, 1, 1, 1])

Case = tuple[list[onnx.NodeProto], dict[str, Any], str]

CHAINS: dict[str, Callable[[], Case]] = {
    "one after the other": lambda: ([conv("a", OUTPUT, "w9", "b9")], {}, "a"),
    "relu": lambda: ([op("Relu", "a", "r"), conv("r", OUTPUT, "w9")], {}, "r"),
    "max pool": lambda: (
        [op("MaxPool", "a", "r", kernel_shape=[2, 2]), conv("r", OUTPUT, "w9")],
        {},
        "r",
    ),
    "zeros around": lambda: (
        [op("Pad", "a p", "r"), conv("r", OUTPUT, "w9")],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)},
        "r",
    ),
    "resized": lambda: (
        [
            helper.make_node("Resize", ["a", "", "s"], ["r"], mode="linear"),
            conv("r", OUTPUT, "w9"),
        ],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        "r",
    ),
    "a sum": lambda: (
        [conv("a", "c", "w1"), op("Add", "a c", "r"), conv("r", OUTPUT, "w9")],
        {"w1": kernel(4, 4, 1, 1, scale=SPREAD)},
        "r",
    ),
    "side by side": lambda: (
        [
            conv("a", "c", "w1"),
            op("Concat", "c a", "r", axis=1),
            conv("r", "d", "w2"),
            conv("d", OUTPUT, "w9", "b9"),
        ],
        {"w1": kernel(4, 4, 1, 1, scale=SPREAD), "w2": kernel(4, 8, 1, 1)},
        "r",
    ),
    "depthwise": lambda: (
        [conv("a", "c", "w1", "b1", group=4), op("Relu", "c", "r"), conv("r", OUTPUT, "w9")],
        {"w1": kernel(4, 1, 3, 3, scale=SPREAD), "b1": kernel(4, scale=SPREAD**2)},
        "r",
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_channels_come_to_like_ranges_and_nothing_else_changes(name: str) -> None:
    nodes, constants, tensor = CHAINS[name]()
    before = network([BEGIN, *nodes], **FIRST, **LAST, **constants)
    after = equalise.equalised(copied(before), BATCHES)
    assert same(before, after)
    # The other half of the range is in the weights, whose channels are rounded one by one.
    assert spread(before, tensor) > 60
    assert spread(after, tensor) < spread(before, tensor) ** 0.75
    onnx.checker.check_model(after)


STOPS: dict[str, Callable[[], Case]] = {
    "it is the output": lambda: ([op("Identity", "a", OUTPUT)], {}, ""),
    "it is asked for as well": lambda: (
        [
            op("Sigmoid", "a", "s"),
            conv("a", "c", "w9"),
            conv("s", "d", "w9"),
            op("Add", "c d", OUTPUT),
        ],
        {},
        "",
    ),
    "not homogeneous": lambda: ([op("Sigmoid", "a", "s"), conv("s", OUTPUT, "w9")], {}, ""),
    "a constant is added": lambda: (
        [op("Add", "a k", "s"), conv("s", OUTPUT, "w9")],
        {"k": np.float32(0.5)},
        "",
    ),
    "ones around": lambda: (
        [op("Pad", "a p k", "r"), conv("r", OUTPUT, "w9")],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "k": np.float32(1)},
        "",
    ),
    "groups": lambda: (
        [conv("a", "c", "w1", group=2), conv("c", OUTPUT, "w9")],
        {"w1": kernel(4, 2, 1, 1)},
        "",
    ),
    "weights that are computed": lambda: (
        [op("Abs", "w9", "w"), conv("a", OUTPUT, "w")],
        {},
        "",
    ),
    "joined lines": lambda: (
        [op("Concat", "a a", "r", axis=2), conv("r", OUTPUT, "w9")],
        {},
        "",
    ),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_reaches_anything_else_stays_as_it_is(name: str) -> None:
    nodes, constants, _ = STOPS[name]()
    before = network([BEGIN, *nodes], **FIRST, **LAST, **constants)
    after = equalise.equalised(copied(before), BATCHES)
    assert all(np.array_equal(value, weights(after)[k]) for k, value in weights(before).items())


def test_two_convolutions_may_share_their_weights() -> None:
    nodes = [conv("a", "c", "w1"), conv("c", "d", "w1"), conv("d", OUTPUT, "w9")]
    before = network([BEGIN, *nodes], **FIRST, **LAST, w1=kernel(4, 4, 1, 1, scale=SPREAD))
    after = equalise.equalised(copied(before), BATCHES)
    assert same(before, after)
    assert not np.allclose(weights(after)["n1/1"], weights(after)["n2/1"])


def test_a_silent_channel_is_left_alone() -> None:
    silent = FIRST["w0"] * np.reshape([1, 1, 1, 0], (4, 1, 1, 1)).astype(np.float32)
    nodes = [BEGIN, op("Relu", "a", "r"), conv("r", OUTPUT, "w9")]
    constants = {"w0": silent, "b0": np.zeros(4, np.float32)}
    before = network(nodes, **constants, **LAST)
    after = equalise.equalised(copied(before), BATCHES)
    assert same(before, after)
    assert np.array_equal(weights(after)["n2/1"][:, 3], LAST["w9"][:, 3])


def scaled(readers: int = 1, shape: tuple[int, ...] = (1, 4, 1, 1)) -> onnx.ModelProto:
    nodes = [BEGIN, op("Mul", "g a", "m"), op("Add", "m o", "s")]
    nodes += [conv("s", "c", "w9"), op("Relu", "m" if readers > 1 else "s", "d")]
    nodes += [conv("d", "e", "w9"), op("Add", "c e", OUTPUT)]
    more = {"g": kernel(4).reshape(shape), "o": kernel(4).reshape(shape)}
    return network(nodes, **FIRST, **LAST, **more)


def test_a_scale_and_an_offset_become_a_convolution() -> None:
    before = scaled()
    after = fold_scale.as_convolutions(copied(before))
    assert [n.op_type for n in after.graph.node].count("Mul") == 0
    assert same(before, after)
    onnx.checker.check_model(after)
    assert {w.name for w in after.graph.initializer} <= {
        name for node in after.graph.node for name in node.input
    }


def test_a_product_that_is_read_elsewhere_stays() -> None:
    before = scaled(readers=2)
    after = fold_scale.as_convolutions(copied(before))
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in before.graph.node]
    assert same(before, after)


def test_int8_keeps_a_quiet_channel() -> None:
    """The last layer listens to the quiet channels alone."""
    w9 = LAST["w9"] / SPREAD.reshape(1, -1, 1, 1)
    nodes = [BEGIN, op("Relu", "a", "r"), conv("r", "c", "w1"), op("Relu", "c", "d")]
    nodes += [conv("d", OUTPUT, "w9")]
    w1 = np.asarray(np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1))
    plain = network(nodes, **FIRST, w1=w1, w9=w9)
    ready = equalise.equalised(copied(plain), BATCHES)
    assert same(plain, ready)

    def error(model: onnx.ModelProto) -> float:
        data = convert.onnx_int8(model.SerializeToString(), BATCHES, "x86_64")
        int8 = onnx.ModelProto.FromString(data)
        return float(
            np.mean([np.abs(a - b).mean() for a, b in zip(run(plain), run(int8), strict=True)])
        )

    assert error(ready) < 0.5 * error(plain)


@pytest.mark.skipif(
    not convert._CAN_KEEP_RANGES, reason="this onnxruntime takes no ranges from a file"
)
def test_a_few_outliers_do_not_set_the_step() -> None:
    """Two values of half a million are a thousand times the rest."""
    batch = np.clip(RNG.normal(size=(1, 3, 400, 400)), -3, 3).astype(np.float32)
    batch[0, 0, 7, 7] = batch[0, 0, 300, 20] = 3000
    w1 = np.asarray(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    nodes = [conv(INPUT, "a", "w1"), op("Relu", "a", "r"), conv("r", "c", "w1")]
    nodes += [op("Relu", "c", "d"), conv("d", OUTPUT, "w9")]
    plain = network(nodes, 400, w1=w1, w9=kernel(2, 3, 1, 1))
    data = convert.onnx_int8(plain.SerializeToString(), [batch], "x86_64")
    want, got = (
        onnxruntime.InferenceSession(d).run([OUTPUT], {INPUT: batch})[0]
        for d in (plain.SerializeToString(), data)
    )
    # One step of 3000 / 255 would be four times all that is there.
    assert np.median(np.abs(want - got)) < 0.05
