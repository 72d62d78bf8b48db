"""The seed's two networks in Keras, with a width factor.

Gate: ResNet50 (He et al., arXiv:1512.03385; layer names and details as in keras.applications, so
that its weights fit at width 1) under the seed's head. Segmenter: the seed's Res-U-Net.
"""

from __future__ import annotations

import keras
from keras import layers

# Keras' default of 0.99 lags a hundred steps behind the weights; over a few thousand steps the
# validation loss then jumps about by factors of a hundred.
_MOMENTUM = 0.9

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


def gate(*, width: float = 1.0, height_px: int = 256, width_px: int = 256) -> keras.Model:
    """ResNet50 body, average pool 4x4, flatten, dense 256, dropout 0.3, one logit.

    Input float32 (n, height_px, width_px, 3) in 0..1; output float32 (n, 1), the logit of
    "defective". Both sides at least 128 px, or the 4x4 pool has nothing left to pool.
    """
    image = keras.Input((height_px, width_px, 3), name="image")
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
    x = layers.AveragePooling2D(4)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(image, layers.Dense(1, name="logit")(x), name="gate")


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
    *, width: float = 1.0, height_px: int = 256, width_px: int = 256, classes: int = 4
) -> keras.Model:
    """Res-U-Net: four steps down, bottleneck, four up, one sigmoid map per defect class.

    Input float32 (n, height_px, width_px, 1), standardised; output float32
    (n, height_px, width_px, classes), probabilities. Both sides must be multiples of 16.
    """
    image = keras.Input((height_px, width_px, 1), name="image")
    x = image
    for _ in range(2):
        x = layers.Conv2D(
            _width(16, width), 3, padding="same", activation="relu", kernel_initializer="he_normal"
        )(x)
        x = layers.BatchNormalization(momentum=_MOMENTUM)(x)
    skips = [x]
    for filters in (32, 64, 128, 256):
        x = _res_block(layers.MaxPooling2D(2)(x), _width(filters, width))
        skips.append(x)
    skips.pop()
    for filters in (128, 64, 32, 16):
        x = layers.Concatenate()([layers.UpSampling2D(2)(x), skips.pop()])
        x = _res_block(x, _width(filters, width))
    maps = layers.Conv2D(classes, 1, activation="sigmoid", name="probability")(x)
    return keras.Model(image, maps, name="segmenter")
