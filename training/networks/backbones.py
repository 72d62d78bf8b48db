"""Headless Keras models as the lower part of the networks: RGB in 0..1 in, feature maps out."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from edge_agent.errors import first_line
from workshop.errors import WorkshopError

IMAGENET = "imagenet"
NONE = "none"

# Of keras.applications.resnet50.preprocess_input: grey levels, blue first, no scaling.
_CAFFE_MEAN_RGB = (123.68, 116.779, 103.939)


def load(name: str) -> keras.Model | None:
    """`none`, `imagenet` (ResNet50 of keras.applications, fetched once) or a .keras file.

    Input float32 (n, h, w, 3) in 0..1, output float32 (n, h/s, w/s, channels). WorkshopError if
    the file is no such model.
    """
    if name == NONE:
        return None
    if name == IMAGENET:
        try:
            return resnet50("imagenet")
        except Exception as error:  # urllib, ssl and keras each raise their own
            raise WorkshopError(
                f"--backbone imagenet: the weights cannot be fetched ({first_line(error)}); "
                "give a .keras file, or none"
            ) from None
    path = Path(name)
    if not path.is_file():
        raise WorkshopError(f"--backbone: {name}: no such file; give imagenet, none or a .keras")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for a file it does not like
        raise WorkshopError(
            f"--backbone: {name}: Keras cannot load it: {first_line(error)}"
        ) from None
    shape, out = model.input_shape, model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or len(out) != 4:
        raise WorkshopError(
            f"--backbone: {name}: input {shape}, output {out}; a headless model is needed: "
            "(n, h, w, 3) in, (n, h, w, channels) out"
        )
    return model


def resnet50(weights: str | None) -> keras.Model:
    """keras.applications' ResNet50 without its head, for RGB in 0..1.

    Its own input is blue-first, in grey levels, less a mean: the order goes into the first
    kernel, the rest into a Normalization layer, so that preprocessing stays the line's.
    """
    image = keras.Input((None, None, 3), name="image")
    mean = np.array(_CAFFE_MEAN_RGB) / 255
    scaled = keras.layers.Normalization(mean=mean, variance=np.full(3, 255.0**-2))(image)
    body = keras.applications.ResNet50(include_top=False, weights=weights, input_tensor=scaled)
    first = body.get_layer("conv1_conv")
    kernel, bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], bias])
    return keras.Model(image, body.output, name="resnet50")


def taps(backbone: keras.Model, height_px: int, width_px: int) -> keras.Model:
    """The backbone with four outputs, at strides 2, 4, 8 and 16: what a U-Net needs.

    At each stride it is the last of the widest maps: the end of a stage. WorkshopError where a
    stride is missing.
    """
    maps = [
        layer.output for layer in backbone.layers if isinstance(layer.output, keras.KerasTensor)
    ]
    # Run once, because a model for any input size does not know the sizes of its maps.
    probe = keras.Model(backbone.input, maps)
    sizes = [tuple(m.shape[1:]) for m in probe(np.zeros((1, height_px, width_px, 3), np.float32))]
    chosen = []
    for stride in (2, 4, 8, 16):
        there = [
            (size[2], order)
            for order, size in enumerate(sizes)
            if len(size) == 3 and (size[0] * stride, size[1] * stride) == (height_px, width_px)
        ]
        if not there:
            raise WorkshopError(
                f"--backbone: {backbone.name}: no maps at stride {stride} of {height_px}x"
                f"{width_px}; strides 2, 4, 8 and 16 are needed, not nested"
            )
        chosen.append(maps[max(there)[1]])
    return keras.Model(backbone.input, chosen, name="encoder")
