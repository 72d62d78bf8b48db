"""Networks in Keras: gate (ResNet50, He et al., arXiv:1512.03385) and segmenter (Res-U-Net).

Both accept a backbone (`training.networks.backbones`) in place of their own encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

# With Keras' default of 0.99, the statistics lag a hundred steps behind the weights; in a run of a
# few thousand steps the validation loss then varies by factors of a hundred.
_MOMENTUM = 0.9

STANDARDISE = "standardise"
"""Prefix of the names of layers with mean and variance of the training images."""
CELLS = "cells"
"""Name of the layer with the map of cells, logits (n, h, w, 1)."""

_CELL_CHANNELS = 64
# Without regularisation the logits grow on few images, and with them the error of int8.
_POOLED_L2 = 0.005

_Maps = Sequence[keras.KerasTensor]

_RESNET50_STACKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def _width(channels: int, width: float) -> int:
    return max(4, round(channels * width / 4) * 4)


def _conv_bn(x, filters: int, size: int, name: str, stride: int = 1):  # type: ignore[no-untyped-def]
    x = layers.Conv2D(filters, size, strides=stride, padding="same", name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1.001e-5, name=f"{name}_bn")(x)


def _bottleneck(x, filters: int, stride: int, project: bool, name: str):  # type: ignore[no-untyped-def]
    shortcut = _conv_bn(x, 4 * filters, 1, f"{name}_0", stride) if project else x
    y = layers.Activation("relu")(_conv_bn(x, filters, 1, f"{name}_1", stride))
    y = layers.Activation("relu")(_conv_bn(y, filters, 3, f"{name}_2"))
    y = _conv_bn(y, 4 * filters, 1, f"{name}_3")
    return layers.Activation("relu", name=f"{name}_out")(layers.Add()([shortcut, y]))


def gate(
    *,
    width: float = 1.0,
    height_px: int = 256,
    width_px: int = 256,
    backbone: keras.Model | None = None,
    head: str = "seed",
    half_turn: bool = False,
) -> keras.Model:
    """Build the gate: backbone or ResNet50, a head, one logit.

    Head "seed": average pool 4x4, flatten, dense 256, dropout 0.3. Its input map must be at least
    4x4, which is 128 px a side at stride 32.

    Head "pooled": linear in the mean and the maximum of each channel over the whole image, of
    every output of the backbone (see `backbones.taps`). The position of a defect has no
    influence, and shallow maps add texture; a small data set alone does not train this.
    Layers with the prefix STANDARDISE use the statistics of the training images (see
    `training.fit.compile`).

    Head "mapped": the logit of "pooled" plus the highest logit on a map of cells, of the size of
    the deepest map, which learns the position of defects from masks (see `training_model`).

    Args:
        width: Factor on the channels of ResNet50; at 1 the weights of keras.applications fit.
        height_px: Height of the input.
        width_px: Width of the input.
        backbone: Headless model in place of ResNet50, or None.
        head: "seed", "pooled" or "mapped".
        half_turn: Also run on the image turned by 180 degrees and average the logits. Channels
            depend a little on the direction, which is noise. Doubles the time; not for "seed".

    Returns:
        A model with input float32 (n, height_px, width_px, 3) in 0..1 and output float32 (n, 1),
        the logit of "defective".
    """
    image = keras.Input((height_px, width_px, 3), name="image")
    half_turn = half_turn and head != "seed"
    # One batch, so that an exported file holds the encoder once.
    x = layers.Concatenate(axis=0)([image, image[:, ::-1, ::-1]]) if half_turn else image
    x = _resnet50(x, width) if backbone is None else backbone(x, training=False)
    if head == "seed":
        x = layers.Flatten()(layers.AveragePooling2D(4)(x))
        x = layers.Dropout(0.3)(layers.Dense(256, activation="relu")(x))
        # float32 also under mixed precision: a logit near the threshold needs the precision.
        return keras.Model(image, layers.Dense(1, dtype="float32", name="logit")(x), name="gate")
    views = 2 if half_turn else 1
    maps = x if isinstance(x, list) else [x]
    logit = _pooled(maps, views)
    if head == "mapped":
        logit = layers.Add(dtype="float32", name="sum")([logit, _mean_of(_mapped(maps), views)])
    return keras.Model(image, logit, name="gate")


def _pooled(maps: _Maps, views: int) -> keras.KerasTensor:
    pools = layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D
    pooled = layers.Concatenate()([pool()(one) for one in maps for pool in pools])
    x = _standardise(_mean_of(pooled, views), STANDARDISE)
    # From zero: with thousands of inputs, random weights keep components that no image corrects.
    return layers.Dense(
        1,
        kernel_initializer="zeros",
        kernel_regularizer=keras.regularizers.L2(_POOLED_L2),
        dtype="float32",
        name="logit",
    )(x)


def _mapped(maps: _Maps) -> keras.KerasTensor:
    """Return the highest mean logit of 2x2 cells; a cell uses all depths and its neighbours."""
    deepest = maps[-1].shape[1:3]
    parts = []
    for depth, one in enumerate(maps):
        step = one.shape[1] // deepest[0], one.shape[2] // deepest[1]
        x = one if step == (1, 1) else layers.MaxPooling2D(step)(one)
        x = layers.Dropout(0.5)(_standardise(x, f"{STANDARDISE}_map_{depth}"))
        parts.append(layers.Conv2D(_CELL_CHANNELS, 1)(x))
    x = layers.Activation("relu")(layers.Add()(parts) if len(parts) > 1 else parts[0])
    x = layers.Conv2D(_CELL_CHANNELS, 3, padding="same", activation="relu")(x)
    cells = layers.Conv2D(1, 1, dtype="float32", name=CELLS)(x)
    # The mean of 2x2 cells, because a single cell may be high by chance.
    return layers.GlobalMaxPooling2D()(layers.AveragePooling2D(2, strides=1)(cells))


def _standardise(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Scale each channel by fixed statistics, by a factor of 100 at most.

    Statistics of a batch would add noise to the input of the head. The limit keeps the noise of
    int8 small on channels that hardly vary.
    """
    return layers.BatchNormalization(
        center=False, scale=False, epsilon=1e-4, trainable=False, name=name
    )(x)


def _mean_of(x: keras.KerasTensor, views: int) -> keras.KerasTensor:
    """Return the mean over the views, from (views * n, c) to (n, c)."""
    return x if views == 1 else ops.mean(ops.reshape(x, (views, -1, x.shape[-1])), axis=0)


def training_model(gate: keras.Model, *, half_turn: bool) -> keras.Model:
    """Build the model to train for a gate with head "mapped", with the same layers.

    Its output is float32 (n, 2 + views * cells): the two logits whose sum is the gate's logit,
    then the logits of the cells of each view, row by row, in the orientation of the image. For
    `losses.MixedSupervision`.
    """
    cells = gate.get_layer(CELLS).output
    height, width = cells.shape[1:3]
    if half_turn:
        first, second = (ops.reshape(cells, (2, -1, height, width))[k] for k in (0, 1))
        cells = layers.Concatenate(axis=1, dtype="float32")([first, second[:, ::-1, ::-1]])
    outputs = [*gate.get_layer("sum").input, layers.Flatten(dtype="float32")(cells)]
    return keras.Model(gate.input, layers.Concatenate(dtype="float32")(outputs))


def _resnet50(image, width: float):  # type: ignore[no-untyped-def]
    x = layers.ZeroPadding2D(3, name="conv1_pad")(image)
    x = layers.Conv2D(_width(64, width), 7, strides=2, name="conv1_conv")(x)
    x = layers.BatchNormalization(momentum=_MOMENTUM, epsilon=1.001e-5, name="conv1_bn")(x)
    x = layers.Activation("relu")(x)
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1, name="pool1_pad")(x))
    for stack, (filters, blocks, stride) in enumerate(_RESNET50_STACKS, start=2):
        for block in range(1, blocks + 1):
            x = _bottleneck(
                x,
                _width(filters, width),
                stride if block == 1 else 1,
                block == 1,
                f"conv{stack}_block{block}",
            )
    return x


def _res_block(x, filters: int):  # type: ignore[no-untyped-def]
    shortcut = layers.BatchNormalization(momentum=_MOMENTUM)(layers.Conv2D(filters, 1)(x))
    y = layers.BatchNormalization(momentum=_MOMENTUM)(
        layers.Conv2D(filters, 1, kernel_initializer="he_normal")(x)
    )
    y = layers.Activation("relu")(y)
    y = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")(y)
    y = layers.BatchNormalization(momentum=_MOMENTUM)(y)
    return layers.Activation("relu")(layers.Add()([y, shortcut]))


def segmenter(
    *,
    width: float = 1.0,
    height_px: int = 256,
    width_px: int = 256,
    classes: int = 4,
    backbone: keras.Model | None = None,
) -> keras.Model:
    """Build the segmenter, a Res-U-Net with one sigmoid map per defect class.

    Args:
        width: Factor on all channels.
        height_px: Height of the input, a multiple of 16.
        width_px: Width of the input, a multiple of 16.
        classes: Number of defect classes.
        backbone: Encoder with outputs at strides 2, 4, 8 and 16 (see `backbones.taps`), or None.
            Its deepest map is also added to the logits: it shows the class of a defect best, and
            the narrow end of the decoder loses most of that.

    Returns:
        A model with input float32 (n, height_px, width_px, 1), standardised, or with a backbone
        (n, height_px, width_px, 3) in 0..1, and output float32 (n, height_px, width_px, classes),
        probabilities.
    """
    image = keras.Input((height_px, width_px, 1 if backbone is None else 3), name="image")
    x = image
    for _ in range(2):
        x = layers.Conv2D(
            _width(16, width), 3, padding="same", activation="relu", kernel_initializer="he_normal"
        )(x)
        x = layers.BatchNormalization(momentum=_MOMENTUM)(x)
    skips = [x]
    if backbone is None:
        for filters in (32, 64, 128, 256):
            x = _res_block(layers.MaxPooling2D(2)(x), _width(filters, width))
            skips.append(x)
    else:
        # Reduce the channels first: a skip of 512 channels would cost more than the decoder.
        for filters, tap in zip((32, 64, 128, 256), backbone(image, training=False), strict=True):
            x = _res_block(tap, _width(filters, width))
            skips.append(x)
    deep = skips.pop()
    for filters in (128, 64, 32, 16):
        x = layers.Concatenate()([layers.UpSampling2D(2)(x), skips.pop()])
        x = _res_block(x, _width(filters, width))
    logits = layers.Conv2D(classes, 1)(x)
    if backbone is not None:
        deep_logits = layers.Conv2D(classes, 1)(deep)
        deep_logits = layers.UpSampling2D(16, interpolation="bilinear")(deep_logits)
        logits = layers.Add()([logits, deep_logits])
    maps = layers.Activation("sigmoid", dtype="float32", name="probability")(logits)
    return keras.Model(image, maps, name="segmenter")
