"""Trained Keras models in: load, check the shape, end the gate in a logit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import keras

from edge_agent.preprocess import GATE_INPUT, SEGMENTER_INPUT, InputSpec
from export.errors import ExportError


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A network ready to convert. `note` says what was changed on it, for the manifest."""

    stage: str
    model: keras.Model
    spec: InputSpec
    sha256: str
    note: str


def load(stage: str, path: Path) -> Source:
    """Load a .keras file as "gate" or "segmenter". Raises ExportError."""
    if not path.is_file():
        raise ExportError(f"--{stage}: {path}: no such file; give a .keras file")
    try:
        # compile=False: neither the loss nor the optimizer is needed. safe_mode refuses code.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for a file it does not like
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"--{stage}: {path}: Keras cannot load it: {first}") from None
    note = ""
    if stage == "gate":
        model, note = _ends_in_logit(model)
    return Source(
        stage, model, _spec(stage, model), hashlib.sha256(path.read_bytes()).hexdigest(), note
    )


def _ends_in_logit(model: keras.Model) -> tuple[keras.Model, str]:
    """Int8 and the sigmoid do not go together: near p = 0.01 few steps are left (1/256 each)."""
    last = model.layers[-1]
    if isinstance(last, keras.layers.Activation) and last.activation is keras.activations.sigmoid:
        return keras.Model(model.input, last.input), "sigmoid layer removed"
    if getattr(last, "activation", None) is keras.activations.sigmoid:
        last.activation = keras.activations.linear
        return keras.Model(model.input, last(last.input)), "sigmoid of the last layer removed"
    return model, ""


def _spec(stage: str, model: keras.Model) -> InputSpec:
    """The seed's preprocessing at the model's own input size."""
    shape, out = tuple(model.input_shape), tuple(model.output_shape)
    usual = GATE_INPUT if stage == "gate" else SEGMENTER_INPUT
    if len(shape) != 4 or None in shape[1:] or shape[3] not in (1, 3):
        raise ExportError(
            f"--{stage}: input {shape}; a fixed (batch, height, width, 1 or 3) is needed"
        )
    if stage == "gate" and out[1:] != (1,):
        raise ExportError(f"--gate: output {out}; one logit, (batch, 1), is needed")
    if stage == "segmenter" and out[1:3] != shape[1:3]:
        raise ExportError(
            f"--segmenter: output {out} for input {shape}; maps of the input's size are needed"
        )
    return InputSpec(
        height=shape[1],
        width=shape[2],
        channels=shape[3],
        scaling=usual.scaling,
        interpolation=usual.interpolation,
    )
