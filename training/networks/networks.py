"""The seed's two networks in Keras, with a width factor, or on a backbone trained before.

Gate: ResNet50 (He et al., arXiv:1512.03385; layer names and details as in keras.applications, so
that its weights fit at width 1) under the seed's head. Segmenter: the seed's Res-U-Net. Either
can stand on a headless Keras model instead of its own encoder (`training.networks.backbones`).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

# Keras' default of 0.99 lags a hundred steps behind the weights; over a few thousand steps the
# validation loss then jumps about by factors of a hundred.
_MOMENTUM = 0.9

STANDARDISE = "standardise"
"""What the names of layers begin with that take mean and variance over the training images."""
CELLS = "cells"
"""The layer of the map, (n, h, w, 1), in logits."""

_CELL_CHANNELS = 64
# With few images the logits grow without it, and int8's error with them.
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
    """ResNet50 body (or `backbone`), the seed's head, one logit.

    That head is an average pool 4x4, flatten, dense 256, dropout 0.3. `head` "pooled" is linear
    in the mean and the maximum of each channel over the whole image, of every map the body gives
    (see `training.networks.backbones.taps`): the place of a defect does not matter then, and
    texture as well as shape is seen, which a small set does not teach by itself. Layers STANDARDISE
    take mean and variance over the training images (see `training.fit.compile`). Head "mapped" adds
    to that logit the highest one on a map of cells, as large as the deepest map, which learns from
    masks where the defect is (see `taught`). With `half_turn` the body sees the image and the image
    turned upside down, and the logit is the mean of both: what a channel says hangs on the
    direction a little, which is noise. It costs the time twice.

    Input float32 (n, height_px, width_px, 3) in 0..1; output float32 (n, 1), the logit of
    "defective". The body's output must be at least 4x4, or the pool has nothing left to pool:
    128 px a side at stride 32.
    """
    image = keras.Input((height_px, width_px, 3), name="image")
    half_turn = half_turn and head != "seed"
    # One batch, so that the body is in an exported file once.
    x = layers.Concatenate(axis=0)([image, image[:, ::-1, ::-1]]) if half_turn else image
    x = _resnet50(x, width) if backbone is None else backbone(x, training=False)
    if head == "seed":
        x = layers.Flatten()(layers.AveragePooling2D(4)(x))
        x = layers.Dropout(0.3)(layers.Dense(256, activation="relu")(x))
        # float32 under mixed precision too: a logit near the threshold needs its digits.
        return keras.Model(image, layers.Dense(1, dtype="float32", name="logit")(x), name="gate")
    looks = 2 if half_turn else 1
    maps = x if isinstance(x, list) else [x]
    logit = _pooled(maps, looks)
    if head == "mapped":
        logit = layers.Add(dtype="float32", name="sum")([logit, _mean_of(_mapped(maps), looks)])
    return keras.Model(image, logit, name="gate")


def _pooled(maps: _Maps, looks: int) -> keras.KerasTensor:
    pools = layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D
    pooled = layers.Concatenate()([pool()(one) for one in maps for pool in pools])
    x = _standardise(_mean_of(pooled, looks), STANDARDISE)
    # From nothing: in thousands of inputs a random start has parts that no image unteaches.
    return layers.Dense(
        1,
        kernel_initializer="zeros",
        kernel_regularizer=keras.regularizers.L2(_POOLED_L2),
        dtype="float32",
        name="logit",
    )(x)


def _mapped(maps: _Maps) -> keras.KerasTensor:
    """The highest logit of two by two cells, each of which sees all depths and its neighbours."""
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
    # One cell alone may be chance.
    return layers.GlobalMaxPooling2D()(layers.AveragePooling2D(2, strides=1)(cells))


def _standardise(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Never by the batch: what follows learns from the values as exactly as they are scaled.

    None is blown up beyond a hundredfold, or int8's noise on one that hardly varies is all that
    the head sees of it.
    """
    return layers.BatchNormalization(
        center=False, scale=False, epsilon=1e-4, trainable=False, name=name
    )(x)


def _mean_of(x: keras.KerasTensor, looks: int) -> keras.KerasTensor:
    """(looks * n, c) to (n, c)."""
    return x if looks == 1 else ops.mean(ops.reshape(x, (looks, -1, x.shape[-1])), axis=0)


def taught(gate: keras.Model, *, half_turn: bool) -> keras.Model:
    """What is trained of a gate of head "mapped", in the same layers; see `losses.Pointing`.

    Output float32 (n, 2 + looks * cells): the two logits whose sum is the gate's, and those of
    the cells in each look, line by line, turned back.
    """
    cells = gate.get_layer(CELLS).output
    height, width = cells.shape[1:3]
    if half_turn:
        first, second = (ops.reshape(cells, (2, -1, height, width))[k] for k in (0, 1))
        cells = layers.Concatenate(axis=1, dtype="float32")([first, second[:, ::-1, ::-1]])
    said = [*gate.get_layer("sum").input, layers.Flatten(dtype="float32")(cells)]
    return keras.Model(gate.input, layers.Concatenate(dtype="float32")(said))


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
    """Res-U-Net: four steps down, bottleneck, four up, one sigmoid map per defect class.

    Input float32 (n, height_px, width_px, 1), standardised; output float32
    (n, height_px, width_px, classes), probabilities. Both sides must be multiples of 16.
    With a `backbone` that gives maps at strides 2, 4, 8 and 16 (see
    `training.networks.backbones.taps`) these take the place of the way down, the input has 3
    channels in 0..1, as the backbone wants it, and the deepest maps have a say of their own in the
    class: what a defect is shows there, and through the narrow end of the decoder it hardly comes.
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
        # Narrow maps first: a skip of 512 channels would cost more than the decoder.
        for filters, tap in zip((32, 64, 128, 256), backbone(image, training=False), strict=True):
            x = _res_block(tap, _width(filters, width))
            skips.append(x)
    deep = skips.pop()
    for filters in (128, 64, 32, 16):
        x = layers.Concatenate()([layers.UpSampling2D(2)(x), skips.pop()])
        x = _res_block(x, _width(filters, width))
    logits = layers.Conv2D(classes, 1)(x)
    if backbone is not None:
        which = layers.Conv2D(classes, 1)(deep)
        which = layers.UpSampling2D(16, interpolation="bilinear")(which)
        logits = layers.Add()([logits, which])
    maps = layers.Activation("sigmoid", dtype="float32", name="probability")(logits)
    return keras.Model(image, maps, name="segmenter")
