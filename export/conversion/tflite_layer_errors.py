"""Error from int8 in each layer of a TFLite network, as `layer_errors`, for activations only.

Weights have steps of their own for each channel and are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input
from export.conversion.layer_errors import Layer, Sums, worst_first

_BORDERS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True, slots=True)
class _Op:
    kind: str
    reads: tuple[str, ...]
    writes: str


# The converter's own QuantizationDebugger is not used: it feeds each layer in float with the output
# of the int8 layers before it, so a concatenation or pooling that shares the steps of its input
# seems faultless. Here the float network gives a tensor's value, the int8 network its steps.
class _Network:
    """Network with access to all its tensors by name, one input at a time."""

    def __init__(self, data: bytes) -> None:
        self._run = Interpreter(
            model_content=data,
            # A delegate does not expose intermediate tensors.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        self._run.allocate_tensors()
        self.tensors: dict[str, Any] = {t["name"]: t for t in self._run.get_tensor_details()}
        names = {t["index"]: name for name, t in self.tensors.items()}
        self.ops = tuple(
            _Op(
                op["op_name"],
                tuple(names[i] for i in op["inputs"] if i in names),
                names[op["outputs"][0]],
            )
            for op in self._run._get_ops_details()  # noqa: SLF001 - no public way
        )

    def show(self, x: Input) -> None:
        """Run the network on one input."""
        self._run.set_tensor(self._run.get_input_details()[0]["index"], x)
        self._run.invoke()

    def value(self, name: str) -> NDArray[np.float64]:
        """Return the tensor of this name after the last run."""
        return np.asarray(self._run.get_tensor(self.tensors[name]["index"]), np.float64)


def rank(float32: bytes, int8: bytes, inputs: Iterable[Input]) -> tuple[Layer, ...]:
    """Rank the int8 layers, named by their output tensors, worst first.

    The activations of one input are in memory at a time.
    """
    plain, whole = _Network(float32), _Network(int8)
    # The input is the same tensor on both sides of the first rounding.
    same = {op.writes: op.reads[0] for op in whole.ops if op.kind == "QUANTIZE"}
    steps = {
        op.writes: whole.tensors[op.writes]["quantization"]
        for op in whole.ops
        if whole.tensors[op.writes]["dtype"] is np.int8
        and same.get(op.writes, op.writes) in plain.tensors
    }
    own, total = Sums(-1), Sums(-1)
    for x in inputs:
        plain.show(x)
        whole.show(x)
        for name, (scale, zero) in steps.items():
            want = plain.value(same.get(name, name))
            kept = np.clip(np.round(want / scale) + zero, -128, 127)
            own.add(name, want, (kept - zero) * scale)
            total.add(name, want, (whole.value(name) - zero) * scale)
    own_db, total_db = own.ratios(), total.ratios()
    return worst_first(
        Layer(
            name=op.writes,
            kind=op.kind,
            own_db=min(own_db[t] for t in (*op.reads, op.writes) if t in own_db),
            total_db=total_db[op.writes],
        )
        for op in whole.ops
        if op.kind not in _BORDERS and op.writes in own_db
    )
