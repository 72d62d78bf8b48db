"""Trained network ready to convert: checked, frozen, a gate ending in a logit.

The model's card describes its input; without a card the seed's preprocessing is assumed.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge_agent.bundle.manifest import GATE_INPUT, SEGMENTER_INPUT, Input, InputSpec
from workshop import model_card
from workshop.errors import WorkshopError
from workshop.keras_models import files, freeze
from workshop.model_card import ModelCard

_Shape = tuple[int, int, Literal[1, 3]]


@dataclass(frozen=True, slots=True, eq=False)
class FloatNetwork:
    """Checked float network.

    `function` is the network as `freeze.freeze` returns it; `output_shape` is (1,) or (h, w,
    classes). `note` describes changes made to it, for the manifest.
    """

    stage: str
    function: Any
    output_shape: tuple[int, ...]
    spec: InputSpec
    sha256: str
    note: str
    card: ModelCard | None = None

    def run(self, batch: Input) -> NDArray[np.float32]:
        """Return the network's output for (n, h, w, c): float32 (n, 1) or (n, h, w, classes)."""
        outputs = [self.function(tf.constant(one[None]))[0].numpy() for one in batch]
        return np.concatenate(outputs)


def load(
    stage: str,
    path: Path,
    weights: Path | None = None,
    *,
    trust: bool = False,
    uint8_input: bool = False,
) -> FloatNetwork:
    """Load a model that `files.load` accepts as "gate" or "segmenter"; raise WorkshopError.

    With `uint8_input` the network itself divides its input by 255, if that is its preprocessing.
    Standardisation by the input's own mean and deviation is done on the line in any case.
    """
    try:
        loaded = files.load(path, weights, trust=trust)
        found = _card(path)
        shape = _shape(loaded.shape)
        function = freeze.freeze(loaded.call, shape)
        files.refuse_reaching_out(function, path, trust=trust)
    except WorkshopError as error:
        raise WorkshopError(f"--{stage}: {error}") from None
    note = ""
    if stage == "gate" and (cut := freeze.without_sigmoid(function)) is not None:
        function, note = cut, "sigmoid at the end removed"
    output = tuple(function.outputs[0].shape[1:])
    spec = _spec(stage, shape, output)
    if found is not None:
        _check_card(stage, path, found, shape, output)
        spec = found.input
    if uint8_input and spec.scaling == "unit":
        function = freeze.from_uint8(function)
        spec = msgspec.structs.replace(spec, scaling="network")
        note = ", ".join(filter(None, (note, "division by 255 added")))
    digest = hashlib.sha256()
    for file in _files(path, weights):
        digest.update(file.read_bytes())
    return FloatNetwork(stage, function, output, spec, digest.hexdigest(), note, found)


def _files(path: Path, weights: Path | None) -> list[Path]:
    """Return all files of the model, in a fixed order."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if weights is None else [path, weights]


def _card(path: Path) -> ModelCard | None:
    # Only a .keras file is an archive, which can hold a card.
    return model_card.read(path) if path.is_file() and zipfile.is_zipfile(path) else None


def _shape(shape: tuple[int | None, ...]) -> _Shape:
    if len(shape) == 3 and shape[0] and shape[1] and shape[2] in (1, 3):
        return shape[0], shape[1], 1 if shape[2] == 1 else 3
    raise WorkshopError(f"input {(None, *shape)}; a fixed (batch, height, width, 1 or 3) is needed")


def _check_card(
    stage: str, path: Path, found: ModelCard, has: _Shape, output: tuple[int, ...]
) -> None:
    if found.stage != stage:
        raise WorkshopError(f"--{stage}: {path}: its card says {found.stage}; give a {stage}")
    want = found.input
    if (want.height, want.width, want.channels) != has:
        raise WorkshopError(
            f"--{stage}: {path}: input {has}, but its card says "
            f"{(want.height, want.width, want.channels)}; train it again"
        )
    if stage == "segmenter" and len(found.class_names) != output[2]:
        raise WorkshopError(
            f"--segmenter: {path}: {output[2]} maps, but its card names "
            f"{len(found.class_names)} classes; train it again"
        )


def _spec(stage: str, shape: _Shape, output: tuple[int, ...]) -> InputSpec:
    """Return the seed's preprocessing at the model's own input size."""
    usual = GATE_INPUT if stage == "gate" else SEGMENTER_INPUT
    if stage == "gate" and output != (1,):
        raise WorkshopError(f"--gate: output {output}; one logit, (1,) an image, is needed")
    if stage == "segmenter" and (len(output) != 3 or output[:2] != shape[:2]):
        raise WorkshopError(
            f"--segmenter: output {output} for input {shape}; maps of the input's size are needed"
        )
    return InputSpec(
        height=shape[0],
        width=shape[1],
        channels=shape[2],
        scaling=usual.scaling,
        interpolation=usual.interpolation,
    )
