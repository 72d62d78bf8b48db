"""Fallback from the wanted form to the first one that meets the criteria.

The order is int8, int8 with the worst layers in float (mixed), TFLite's dynamic range, float16,
float32. Each form is converted and compared with float Keras on the search set, float32 excepted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.bundle.manifest import Precision
from edge_agent.errors import first_line
from export.acceptance import criteria
from export.acceptance.scoring import Scorer, Scores
from export.conversion import onnx
from export.conversion.layer_errors import Layer
from export.conversion.partial_int8 import Int8, OnnxInt8, tflite_int8
from export.exporter import Batches, ConvertedForm, Form, converted, opened
from workshop.keras_models.load import FloatNetwork

_BELOW: dict[str, tuple[Precision, ...]] = {
    "onnx": ("float16", "float32"),
    "tflite": ("dynamic", "float16", "float32"),
}

_DEAD = "does not load: "


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One conversion and its fault on the search set; "" means none.

    `form` is a label as in the bundle; `kept_float` counts the layers that the search left in
    float.
    """

    form: str
    kept_float: int
    fault: str


class FormOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the fallback for one wanted form.

    `became` may be a form that the bundle contains already; the bundle then has one file less.
    `layers` ranks the layers of a wanted int8 form, worst first.
    """

    stage: str
    wanted: str
    became: str
    kept_float: tuple[str, ...]
    note: str
    attempts: tuple[Attempt, ...]
    layers: tuple[Layer, ...]


class Fallback:
    """Conversion of all forms of one network under the criteria, one entry of `outcomes` each."""

    def __init__(
        self,
        examiner: Scorer,
        images: Sequence[int],
        limits: criteria.Limits,
        tell: Callable[[str], None],
    ) -> None:
        """Store the search set `images`; call `tell` with a line of text for each attempt."""
        self.outcomes: list[FormOutcome] = []
        self._examiner, self._images, self._limits, self._tell = examiner, images, limits, tell
        # Computed on first use: the network is not loaded yet.
        self._reference: Scores
        self._attempts: list[Attempt] = []

    def convert_all(
        self, source: FloatNetwork, wanted: Sequence[Form], batches: Batches
    ) -> Iterator[ConvertedForm]:
        """Yield the converted forms, as `exporter.ConvertAll` does; no form is yielded twice."""
        (asked,) = self._examiner.ask(
            [source.run], self._images, f"{source.stage} float Keras, search set"
        )
        self._reference = self._examiner.reference(asked)
        float32 = onnx.onnx_float32(source) if _has_onnx(wanted) else b""
        given = {form.label for form in wanted}
        with tempfile.TemporaryDirectory() as folder:
            for form in wanted:
                self._attempts = []
                one, layers = self._settled(source, form, float32, batches, Path(folder))
                self.outcomes.append(
                    FormOutcome(
                        stage=source.stage,
                        wanted=form.label,
                        became=one.form.label,
                        kept_float=one.kept_float,
                        note=one.note,
                        attempts=tuple(self._attempts),
                        layers=layers,
                    )
                )
                if one.form == form or one.form.label not in given:
                    given.add(one.form.label)
                    yield one

    def _settled(
        self, source: FloatNetwork, form: Form, float32: bytes, batches: Batches, folder: Path
    ) -> tuple[ConvertedForm, tuple[Layer, ...]]:
        layers: tuple[Layer, ...] = ()
        if form.precision == "int8":
            with _int8(source, form, float32, batches, folder) as int8:
                one, layers = self._searched(form, int8)
            if one is not None:
                return one, layers
        below = _BELOW[form.format]
        start = below.index(form.precision) if form.precision in below else 0
        for precision in below[start:]:
            rung = Form(form.format, precision)
            data = converted(source, rung, float32, batches)
            if precision == "float32" or not self._fault(rung, data, 0):
                return ConvertedForm(rung, data, note=self._note(form, rung)), layers
        raise AssertionError("float32 always passes")

    def _searched(self, form: Form, int8: Int8) -> tuple[ConvertedForm | None, tuple[Layer, ...]]:
        """Return the int8 or mixed form, or None, and the layer ranking, () if no file loads."""
        data = int8.make(())
        first = self._fault(form, data, 0)
        if first.startswith(_DEAD):
            return None, ()
        self._tell(f"{self._examiner.stage} {form.label} layers")
        layers = int8.layers()
        if not first:
            return ConvertedForm(form, data), layers
        tried: dict[int, bytes] = {}

        def holds(k: int) -> bool:
            if k == 0:
                return False
            tried[k] = int8.make([layer.name for layer in layers[:k]])
            return not self._fault(form, tried[k], k)

        # A network with more than half of its layers in float is neither small nor fast.
        k = criteria.fewest(len(layers) // 2, holds)
        if k is None:
            return None, layers
        kept = tuple(layer.name for layer in layers[:k])
        return ConvertedForm(
            form, tried[k], kept, f"{k} layers stay float; all in int8: {first}"
        ), layers

    def _fault(self, form: Form, data: bytes, kept_float: int) -> str:
        """Return the fault of this file, "" if it has none, and record it as an attempt."""
        what = f"{self._examiner.stage} {form.label}" + f" -{kept_float}" * bool(kept_float)
        self._tell(what)
        with tempfile.TemporaryDirectory() as folder:
            try:
                network = opened(form, data, Path(folder)).run
            except Exception as error:  # each library raises exceptions of its own
                fault = _DEAD + first_line(error)
            else:
                (scores,) = self._examiner.ask([network], self._images, what)
                stage, limits = self._examiner.stage, self._limits
                fault = criteria.fault(stage, self._reference, scores, limits)
        self._attempts.append(Attempt(form=form.label, kept_float=kept_float, fault=fault))
        return fault

    def _note(self, wanted: Form, rung: Form) -> str:
        if wanted == rung:
            return ""
        most = max((a.kept_float for a in self._attempts), default=0)
        tried = f", and not healed by {most} layers in float" if most else ""
        return f"instead of {wanted.label}: {self._attempts[0].fault}{tried}"


def _has_onnx(wanted: Sequence[Form]) -> bool:
    return any(form.format == "onnx" for form in wanted)


@contextmanager
def _int8(
    source: FloatNetwork, form: Form, float32: bytes, batches: Batches, folder: Path
) -> Iterator[Int8]:
    if form.format == "tflite":
        with tflite_int8(source, batches) as int8:
            yield int8
    else:
        cpu: Literal["x86_64", "aarch64"] = "aarch64" if form.cpu == "aarch64" else "x86_64"
        yield OnnxInt8(float32, batches, cpu, folder)
