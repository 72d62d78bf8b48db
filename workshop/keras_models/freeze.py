"""Network as one TensorFlow graph with its weights inside, the input of both converters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

INPUT, OUTPUT = "image", "output"


def freeze(call: Callable[[Any], Any], shape: tuple[int, ...], kind: Any = tf.float32) -> Any:
    """Return `call` on one image (1, h, w, c) as a concrete function without variables."""
    from tensorflow.python.framework.convert_to_constants import (  # has no public equivalent
        convert_variables_to_constants_v2,
    )

    signature = [tf.TensorSpec((1, *shape), kind, name=INPUT)]
    serve = tf.function(lambda image: tf.identity(call(image)), input_signature=signature)
    return convert_variables_to_constants_v2(serve.get_concrete_function())


def without_sigmoid(frozen: Any) -> Any | None:
    """Return the function up to its last sigmoid; None if it does not end in one.

    Int8 after a sigmoid is too coarse: its steps are 1/256 each, few of them near p = 0.01.
    """
    (output,) = frozen.outputs
    while output.op.type == "Identity":
        output = output.op.inputs[0]
    if output.op.type != "Sigmoid":
        return None
    return frozen.prune(frozen.inputs, [output.op.inputs[0]])


def from_uint8(frozen: Any) -> Any:
    """Return the function with the camera's uint8 levels as its input.

    They are scaled by the factor of `preprocess.scale`. A converter may fold it into the first
    weights: the last digit may differ.
    """
    scale = tf.constant(np.float32(1 / 255))
    shape = tuple(frozen.inputs[0].shape[1:])
    return freeze(lambda image: frozen(tf.cast(image, tf.float32) * scale)[0], shape, tf.uint8)


class ServingModule(tf.Module):  # type: ignore[misc]
    """Module with input and output names that the converters keep."""

    def __init__(self, frozen: Any) -> None:
        super().__init__()
        self.frozen = frozen
        shape, kind = frozen.inputs[0].shape, frozen.inputs[0].dtype

        @tf.function(input_signature=[tf.TensorSpec(shape, kind, name=INPUT)])  # type: ignore[untyped-decorator]
        def serve(image: Any) -> dict[str, Any]:
            (output,) = frozen(image)
            return {OUTPUT: output}

        self.serve = serve
