"""Backbones: headless Keras models from RGB in 0..1 to feature maps."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from edge_agent.errors import first_line
from workshop.errors import WorkshopError

IMAGENET = "imagenet"
NONE = "none"

# The mean of keras.applications.resnet50.preprocess_input, in grey levels; there in BGR order.
_CAFFE_MEAN_RGB = (123.68, 116.779, 103.939)


def load(name: str) -> keras.Model | None:
    """Load a backbone: None for `none`, ResNet50 for `imagenet`, or the model in a .keras file.

    `imagenet` downloads the weights of keras.applications once. Input float32 (n, h, w, 3) in
    0..1, output float32 (n, h/s, w/s, channels). Raises WorkshopError if the file or the weights
    cannot be loaded, or if the model has other shapes.
    """
    if name == NONE:
        return None
    if name == IMAGENET:
        try:
            return resnet50("imagenet")
        except Exception as error:  # urllib, ssl and keras raise different types
            raise WorkshopError(
                f"--backbone imagenet: the weights cannot be downloaded ({first_line(error)}); "
                "give a .keras file or none"
            ) from None
    path = Path(name)
    if not path.is_file():
        raise WorkshopError(
            f"--backbone: {name}: no such file; give imagenet, none or a .keras file"
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types for an invalid file
        raise WorkshopError(
            f"--backbone: {name}: Keras cannot load it ({first_line(error)}); give another file"
        ) from None
    shape, out = model.input_shape, model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or len(out) != 4:
        raise WorkshopError(
            f"--backbone: {name}: input {shape}, output {out}; give a headless model with input "
            "(n, h, w, 3) and output (n, h, w, channels)"
        )
    return model


def resnet50(weights: str | None) -> keras.Model:
    """Build ResNet50 of keras.applications without its head, for RGB in 0..1.

    The original expects BGR grey levels minus a mean. The channel order goes into the first
    kernel and the rest into a Normalization layer, so that the preprocessing of the line applies.
    `weights` is "imagenet" or None, as in keras.applications.
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
    """Give the backbone four outputs, at strides 2, 4, 8 and 16, as a U-Net needs.

    At each stride, the output is the last of the maps with the most channels, the end of a stage.
    Raises WorkshopError if a stride is missing.
    """
    maps = [
        layer.output for layer in backbone.layers if isinstance(layer.output, keras.KerasTensor)
    ]
    # A model for any input size gives the sizes of its maps only when it runs.
    probe = keras.Model(backbone.input, maps)
    sizes = [tuple(m.shape[1:]) for m in probe(np.zeros((1, height_px, width_px, 3), np.float32))]
    chosen = []
    for stride in (2, 4, 8, 16):
        matching = [
            (size[2], order)
            for order, size in enumerate(sizes)
            if len(size) == 3 and (size[0] * stride, size[1] * stride) == (height_px, width_px)
        ]
        if not matching:
            raise WorkshopError(
                f"--backbone: {backbone.name}: no maps at stride {stride} of {height_px}x"
                f"{width_px}; give a model with strides 2, 4, 8 and 16 that is not nested"
            )
        chosen.append(maps[max(matching)[1]])
    return keras.Model(backbone.input, chosen, name="encoder")
