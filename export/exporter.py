"""All forms of one network, each run and compared on the runtime of the line."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Cpu, Format, Input, InputSpec, Precision
from edge_agent.frame import Image
from edge_agent.inspection.gate import frame_score, logit
from edge_agent.inspection.preprocess import inputs, tile_boxes
from edge_agent.inspection.runtime import Runtime
from edge_agent.inspection.runtime.onnx import OnnxRuntime
from edge_agent.inspection.runtime.tflite import TfliteRuntime
from export import float_comparison, memory
from export.bundle_writer import ExportedArtifact, tolerance
from export.conversion import minimum_runtime, onnx, tflite
from export.conversion.partial_int8 import tflite_int8
from workshop.errors import WorkshopError
from workshop.keras_models.freeze import INPUT, OUTPUT
from workshop.keras_models.load import FloatNetwork


@dataclass(frozen=True, slots=True)
class Form:
    """Form of an artifact; `cpu` is the target of int8 in ONNX, made for one architecture."""

    format: Format
    precision: Precision
    cpu: Cpu = "any"

    @property
    def label(self) -> str:
        """Return the label, as in `bundle.Artifact`."""
        name = f"{self.format}-{self.precision}"
        return f"{name}-aarch64" if self.cpu == "aarch64" else name


FORMS = (
    Form("onnx", "float32"),
    Form("onnx", "float16"),
    Form("onnx", "int8", "x86_64"),
    Form("onnx", "int8", "aarch64"),
    Form("tflite", "float32"),
    Form("tflite", "float16"),
    Form("tflite", "dynamic"),
    Form("tflite", "int8"),
)
USUAL = tuple(
    form
    for form in FORMS
    if form.precision in ("float32", "int8") and form.cpu in ("any", platform.machine())
)
"""Forms that this machine runs; ONNX int8 for the other architecture must be named."""


@dataclass(frozen=True, slots=True, eq=False)
class ConvertedForm:
    """File of one form; `kept_float` and `note` are as in `bundle.Artifact`."""

    form: Form
    data: bytes
    kept_float: tuple[str, ...] = ()
    note: str = ""


class Batches:
    """Inputs of some images, tile by tile, computed anew in each iteration.

    A hundred wide frames in tiles of float32 would fill gigabytes.
    """

    def __init__(self, images: Sequence[Image], spec: InputSpec) -> None:
        """Count the tiles; raise WorkshopError for an image that gives too many."""
        self._images, self._spec = images, spec
        try:
            self.tiles = [len(tile_boxes((i.shape[0], i.shape[1]), spec)) for i in images]
        except ValueError as error:
            raise WorkshopError(f"--samples: {error}") from None

    def __iter__(self) -> Iterator[Input]:
        for image in self._images:
            yield from inputs(image, self._spec)


ConvertAll = Callable[[FloatNetwork, Sequence[Form], Batches], Iterator[ConvertedForm]]


def golden_samples(gate: FloatNetwork, images: Sequence[Image]) -> list[int]:
    """Return four images: the two with the gate's lowest and the two with its highest scores."""
    batches = Batches(images, gate.spec)
    logits = iter([logit(gate.run(batch)) for batch in batches])
    scores = [frame_score([next(logits) for _ in range(count)]) for count in batches.tiles]
    order = np.argsort(scores)
    return [int(i) for i in (*order[:2], *order[-2:])]


def forms(
    source: FloatNetwork,
    wanted: Sequence[Form],
    images: Sequence[Image],
    golden: Sequence[int],
    done: Callable[[str], None],
    convert_all: ConvertAll | None = None,
) -> tuple[list[ExportedArtifact], list[float_comparison.ComparisonRow]]:
    """Return the wanted artifacts and their comparison with float Keras on all tiles of `images`.

    `done` is called after each step: one per form, and the comparison. `convert_all` replaces the
    plain conversion; its forms need not be the wanted ones.
    """
    batches = Batches(images, source.spec)
    converted: list[tuple[ConvertedForm, float_comparison.FormComparison]] = []
    with tempfile.TemporaryDirectory() as folder:
        for one in (convert_all or _convert_all)(source, wanted, batches):
            size, runtime = len(one.data), opened(one.form, one.data, Path(folder))
            converted.append(
                (one, float_comparison.FormComparison(source.stage, one.form.label, size, runtime))
            )
            memory.give_back()
            done(one.form.label)
        outputs = _compared(source, batches, golden, [comparison for _, comparison in converted])
        shown = np.concatenate(list(Batches([images[i] for i in golden], source.spec)))
        made, rows = [], []
        for (one, comparison), answers in zip(converted, outputs, strict=True):
            form, path = one.form, Path(folder) / "tried"
            path.write_bytes(one.data)
            allowed = tolerance(source.stage, form.precision)
            versions, old = minimum_runtime.check(form.format, path, shown, answers, allowed)
            made.append(
                ExportedArtifact(
                    form.format,
                    form.precision,
                    form.cpu,
                    one.data,
                    answers,
                    versions,
                    old,
                    kept_float=one.kept_float,
                    note=one.note,
                )
            )
            rows.append(
                replace(
                    comparison.row(),
                    oldest_runtime=old.name,
                    refused_there=old.refusal,
                    tried_there=old.tried,
                )
            )
        done("compared")
    return made, rows


def _convert_all(
    source: FloatNetwork, wanted: Sequence[Form], batches: Batches
) -> Iterator[ConvertedForm]:
    float32 = b""
    if any(form.format == "onnx" for form in wanted):
        float32 = onnx.onnx_float32(source)
    for form in wanted:
        yield ConvertedForm(form, converted(source, form, float32, batches))


def converted(source: FloatNetwork, form: Form, float32: bytes, batches: Batches) -> bytes:
    """Convert one form without criteria; `float32` is the network as ONNX, for the ONNX forms."""
    if form.cpu != "any":
        return onnx.onnx_int8(onnx.onnx_ready(float32, batches), batches, form.cpu)
    if form.format == "onnx":
        return float32 if form.precision == "float32" else onnx.onnx_float16(float32)
    if form.precision == "int8":
        with tflite_int8(source, batches) as int8:
            return int8.make(())
    return {
        "float32": tflite.tflite_float32,
        "float16": tflite.tflite_float16,
        "dynamic": tflite.tflite_dynamic,
    }[form.precision](source)


def opened(form: Form, data: bytes, folder: Path) -> Runtime:
    """Write the file to `folder` and open it on the runtime of the line."""
    path = folder / f"{form.label}.{form.format}"
    path.write_bytes(data)
    threads = len(os.sched_getaffinity(0))
    if form.format == "tflite":
        # By name: the other TFLite runtime crashes beside TensorFlow (docs/decisions/0004).
        return TfliteRuntime(path, INPUT, OUTPUT, threads, "ai-edge-litert")
    elsewhere = form.cpu not in ("any", platform.machine())
    return OnnxRuntime(path, INPUT, OUTPUT, threads, exact=elsewhere)


def _compared(
    source: FloatNetwork,
    batches: Batches,
    golden: Sequence[int],
    comparisons: Sequence[float_comparison.FormComparison],
) -> list[NDArray[np.float32]]:
    """Run Keras and all of `comparisons` on every input; return the golden outputs of each.

    Inputs are run one by one and only the golden maps are kept: those of all inputs would not fit.
    """
    kept: dict[int, list[list[NDArray[np.float32]]]] = {index: [] for index in golden}
    left = iter(batches)
    for index, count in enumerate(batches.tiles):
        for _ in range(count):
            batch = next(left)
            reference = source.run(batch)
            outputs = [one.see(batch, reference) for one in comparisons]
            if index in kept:
                kept[index].append(outputs)
    tiles = [outputs for index in golden for outputs in kept[index]]
    return [np.concatenate(of_one) for of_one in zip(*tiles, strict=True)]
