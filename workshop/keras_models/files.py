"""Loading of trained models in the usual formats, as one function of a batch of images.

`.keras` and `.h5` files, a SavedModel folder, or JSON with weights (Keras 2.3). Loss and optimizer
are dropped. No code from a file is executed unless the file is trusted.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from edge_agent.errors import first_line
from workshop.errors import WorkshopError

# Functions that a layer of Keras 2 may import from TensorFlow by name, beside its own operators.
_SAFE_FUNCTIONS = ("__operators__.", "math.", "nn.", "image.", "concat", "reshape", "cast", "stack")
# Checked besides the stateful flag: neither alone finds every operator that reaches out of a graph.
_REACHING_OUT = ("PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles")


@dataclass(frozen=True, slots=True, eq=False)
class KerasNetwork:
    """Loaded network as a function.

    `call` takes float32 (batch, h, w, c) and returns one tensor; `shape` is (h, w, c), with None
    where the model leaves it open. `owner` keeps the weights alive.
    """

    call: Callable[[Any], Any]
    shape: tuple[int | None, ...]
    owner: Any


def load(path: Path, weights: Path | None, *, trust: bool) -> KerasNetwork:
    """Load a model; raise WorkshopError with the problem, without the argument's name."""
    if path.suffix == ".json":
        if weights is None:
            raise WorkshopError(f"{path}: an architecture without weights; give them beside it")
        return _of_keras(_from_json(path, weights, trust=trust))
    if weights is not None:
        raise WorkshopError(f"{path}: holds its own weights; give others with a .json only")
    if path.is_dir():
        return _from_saved_model(path)
    if not path.is_file():
        raise WorkshopError(f"{path}: no such file; give a .keras, .h5, SavedModel or .json")
    if not zipfile.is_zipfile(path):
        _refuse_code(path, _config_in_h5(path), trust=trust)
    try:
        # safe_mode refuses code in .keras files.
        model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:  # Keras raises many types for an invalid file
        why = first_line(error)
        if not trust and "safe_mode" in str(error):
            why = "it holds a Lambda layer, which is code; add --trust if you know who made it"
        elif path.suffix == ".h5" and (again := _in_keras_2(path)) is not None:
            return _of_keras(again)
        raise WorkshopError(f"{path}: Keras cannot load it: {why}") from None
    return _of_keras(model)


def refuse_reaching_out(function: Any, path: Path, *, trust: bool) -> None:
    """Raise WorkshopError if the graph has operators that call Python or access files."""
    from tensorflow.python.framework import op_def_registry  # has no public equivalent

    for operation in function.graph.get_operations():
        found = op_def_registry.get(operation.type)
        stateful = found is not None and found.is_stateful and operation.type != "Placeholder"
        if not trust and (stateful or operation.type.startswith(_REACHING_OUT)):
            raise WorkshopError(
                f"{path}: its graph holds {operation.type}, which reaches out of it; add --trust "
                "if you know who made it"
            )


def _of_keras(model: Any) -> KerasNetwork:
    shapes = model.input_shape, model.output_shape
    if not all(isinstance(s, tuple) for s in shapes):
        raise WorkshopError(f"inputs {shapes[0]}, outputs {shapes[1]}; one of each is needed")
    return KerasNetwork(lambda x: model(x, training=False), tuple(shapes[0][1:]), model)


def _from_json(path: Path, weights: Path, *, trust: bool) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text)
    except (OSError, ValueError) as error:
        raise WorkshopError(f"{path}: {first_line(error)}; give Keras' model.to_json()") from None
    if not weights.is_file():
        raise WorkshopError(f"{weights}: no such file; give the weights of {path.name}")
    _refuse_code(path, config, trust=trust)
    # Keras 3 does not read JSON written by Keras 2.
    import tf_keras

    if trust:
        tf_keras.__internal__.enable_unsafe_deserialization()
    try:
        model = tf_keras.models.model_from_json(text)
        model.load_weights(weights)
    except Exception as error:  # Keras raises many types
        raise WorkshopError(f"{path} with {weights.name}: {first_line(error)}") from None
    return model


def _in_keras_2(path: Path) -> Any | None:
    import tf_keras

    try:
        return tf_keras.models.load_model(path, compile=False)
    except Exception:  # the message of Keras 3 is reported instead
        return None


def _from_saved_model(path: Path) -> KerasNetwork:
    try:
        owner = tf.saved_model.load(str(path))
        call = owner.signatures["serving_default"]
    except KeyError:
        raise WorkshopError(f"{path}: no serving_default signature; save it with one") from None
    except Exception as error:  # a damaged file may raise any exception
        raise WorkshopError(f"{path}: not a SavedModel: {first_line(error)}") from None
    given, result = call.structured_input_signature[1], call.structured_outputs
    if len(given) != 1 or len(result) != 1:
        raise WorkshopError(
            f"{path}: inputs {sorted(given)}, outputs {sorted(result)}; one of each is needed"
        )
    ((name, spec),), ((output, _),) = given.items(), result.items()
    return KerasNetwork(lambda x: call(**{name: x})[output], tuple(spec.shape[1:]), owner)


def _config_in_h5(path: Path) -> Any:
    import h5py

    try:
        with h5py.File(path) as file:
            return json.loads(file.attrs["model_config"])
    except (OSError, ValueError):
        raise WorkshopError(f"{path}: neither a .keras nor an .h5 file") from None
    except KeyError:
        raise WorkshopError(
            f"{path}: weights without an architecture; give them with its model.json"
        ) from None


def _refuse_code(path: Path, config: Any, *, trust: bool) -> None:
    for name, inner in () if trust else _layers(config):
        function = str(inner.get("function", ""))
        if name == "Lambda" or (name == "TFOpLambda" and not function.startswith(_SAFE_FUNCTIONS)):
            raise WorkshopError(
                f"{path}: holds a {name} layer ({inner.get('name', '?')}), which is code; add "
                "--trust if you know who made it"
            )


def _layers(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the class name and configuration of every layer, nested ones too."""
    if isinstance(tree, dict):
        if isinstance(tree.get("config"), dict):
            yield str(tree.get("class_name", "")), tree["config"]
        for value in tree.values():
            yield from _layers(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _layers(value)
