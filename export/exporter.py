"""All forms of one network, each run and compared on the runtime that will run it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle import Format, Precision
from edge_agent.frame import Image
from edge_agent.preprocess import prepare
from edge_agent.runtime.onnx import OnnxRuntime
from edge_agent.runtime.tflite import TfliteRuntime
from export import compare, convert
from export.pack import Made
from export.source import Source


def golden_samples(gate: Source, images: Sequence[Image]) -> list[int]:
    """Four of the images: the two the gate scores lowest and the two it scores highest."""
    order = np.argsort(_in_keras(gate, [prepare(i, gate.spec) for i in images])[:, 0])
    return [int(i) for i in (*order[:2], *order[-2:])]


def forms(
    source: Source, images: Sequence[Image], golden: Sequence[int]
) -> Iterator[tuple[Made, compare.Row]]:
    """Each artifact as it is made, with its comparison against float Keras on `images`."""
    batches = [prepare(image, source.spec) for image in images]
    reference = _in_keras(source, batches)
    float32 = convert.onnx_float32(source)
    makers: tuple[tuple[Format, Precision, Callable[[], bytes]], ...] = (
        ("onnx", "float32", lambda: float32),
        ("onnx", "int8", lambda: convert.onnx_int8(float32, source, batches)),
        ("tflite", "float32", lambda: convert.tflite_float32(source)),
        ("tflite", "int8", lambda: convert.tflite_int8(source, batches)),
    )
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for kind, precision, make in makers:
            data = make()
            path = Path(folder) / f"{source.stage}-{precision}.{kind}"
            path.write_bytes(data)
            opened = OnnxRuntime if kind == "onnx" else TfliteRuntime
            runtime = opened(path, convert.INPUT, convert.OUTPUT, threads)
            row, outputs = compare.row(
                source.stage, f"{kind}-{precision}", len(data), runtime, batches, reference
            )
            yield Made(kind, precision, data, outputs[list(golden)]), row


def _in_keras(source: Source, batches: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([np.asarray(source.model(b, training=False)) for b in batches])
