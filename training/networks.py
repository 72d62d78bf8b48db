"""The seed's two networks in Keras, with a width factor, or on a backbone trained before.

Gate: ResNet50 (He et al., arXiv:1512.03385; layer names and details as in keras.applications, so
that its weights fit at width 1) under the seed's head. Segmenter: the seed's Res-U-Net. Either
can stand on a headless Keras model instead of its own encoder (`training.backbones`).
"""

from __future__ import annotations

import keras
from keras import layers, ops

# Keras' default of 0.99 lags a hundred steps behind the weights; over a few thousand steps the
# validation loss then jumps about by factors of a hundred.
_MOMENTUM = 0.9

STANDARDISE = "standardise"

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
    (see `training.backbones.taps`): the place of a defect does not matter then, and texture as
    well as shape is seen, which a small set does not teach by itself. Its layer STANDARDISE takes
    their mean and variance over the training images (see `training.fit`). With `half_turn` the
    body sees the image and the image turned upside down, and the pools are the mean of both: what
    a channel says hangs on the direction a little, which is noise. It costs the time twice.

    Input float32 (n, height_px, width_px, 3) in 0..1; output float32 (n, 1), the logit of
    "defective". The body's output must be at least 4x4, or the pool has nothing left to pool:
    128 px a side at stride 32.
    """
    image = keras.Input((height_px, width_px, 3), name="image")
    half_turn = half_turn and head == "pooled"
    # One batch, so that the body is in an exported file once.
    x = layers.Concatenate(axis=0)([image, image[:, ::-1, ::-1]]) if half_turn else image
    x = _resnet50(x, width) if backbone is None else backbone(x, training=False)
    start = "glorot_uniform"
    if head == "pooled":
        pools = layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D
        maps = x if isinstance(x, list) else [x]
        pooled = layers.Concatenate()([pool()(one) for one in maps for pool in pools])
        if half_turn:
            pooled = ops.mean(ops.reshape(pooled, (2, -1, pooled.shape[-1])), axis=0)
        # From nothing: in thousands of inputs a random start has parts that no image unteaches.
        start = "zeros"
        # Never by the batch: a linear head learns from the pools as exactly as they are scaled.
        # None is blown up beyond a hundredfold, or int8's noise on a pool that hardly varies is
        # all that the head sees of it.
        scale = layers.BatchNormalization(
            center=False, scale=False, epsilon=1e-4, trainable=False, name=STANDARDISE
        )
        x = scale(pooled)
    else:
        x = layers.Flatten()(layers.AveragePooling2D(4)(x))
        x = layers.Dropout(0.3)(layers.Dense(256, activation="relu")(x))
    # float32 under mixed precision too: a logit near the threshold needs its digits.
    logit = layers.Dense(1, kernel_initializer=start, dtype="float32", name="logit")(x)
    return keras.Model(image, logit, name="gate")


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
    With a `backbone` that gives maps at strides 2, 4, 8 and 16 (see `training.backbones.taps`)
    these take the place of the way down, the input has 3 channels in 0..1, as the backbone wants
    it, and the deepest maps have a say of their own in the class: what a defect is shows there,
    and through the narrow end of the decoder it hardly comes.
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
