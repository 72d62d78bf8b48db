"""Keras models small enough to export in seconds; two of them know what they look for."""

import keras
import numpy as np
from keras import layers


def small_gate(*, sigmoid: str = "") -> keras.Model:
    """`sigmoid`: "" ends in a logit, "dense" in Dense(sigmoid), "layer" in an Activation."""
    keras.utils.set_random_seed(3)
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, strides=2, activation="relu")(x))
    x = layers.Dense(1, activation="sigmoid" if sigmoid == "dense" else None)(x)
    return keras.Model(image, layers.Activation("sigmoid")(x) if sigmoid == "layer" else x)


def small_segmenter(maps: int = 4, channels: int = 1) -> keras.Model:
    keras.utils.set_random_seed(4)
    image = keras.Input((64, 64, channels))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    y = layers.UpSampling2D(2)(layers.Conv2D(8, 3, padding="same")(layers.MaxPooling2D(2)(x)))
    x = layers.Concatenate()([x, y])
    return keras.Model(image, layers.Conv2D(maps, 1, activation="sigmoid")(x))


def level_gate() -> keras.Model:
    """Input 256x256 in 0..1. A spot of 8x8 px brighter than 0.6 or darker than 0.2 is a defect."""
    image = keras.Input((256, 256, 3))
    away = layers.Conv2D(2, 1, activation="relu")
    dense = layers.Dense(1)
    x = layers.AveragePooling2D(8)(away(image))
    model = keras.Model(image, dense(layers.Flatten()(layers.MaxPooling2D(32)(x))))
    grey = np.full((1, 1, 3, 1), 1 / 3, np.float32)
    away.set_weights([np.concatenate([grey, -grey], axis=3), np.array([-0.6, 0.2], np.float32)])
    dense.set_weights([np.full((2, 1), 60, np.float32), np.array([-6], np.float32)])
    return model


def level_segmenter() -> keras.Model:
    """Input 256x256, standardised. Dark and bright: four deviations below and above the mean."""
    image = keras.Input((256, 256, 1))
    maps = layers.Conv2D(2, 1, activation="sigmoid")
    model = keras.Model(image, maps(image))
    maps.set_weights([np.array([[[[-4, 4]]]], np.float32), np.array([-16, -16], np.float32)])
    return model


def loud_segmenter(loudness: float) -> keras.Model:
    """`level_segmenter` beside a channel as loud as that: see `loud_gate`. Both are raised by one,
    so that their ranges cannot be evened out."""
    image = keras.Input((256, 256, 1))
    first, loud = layers.Conv2D(1, 1), layers.Conv2D(1, 1)
    maps = layers.Conv2D(2, 1, activation="sigmoid")
    both = layers.Rescaling(1.0, 1.0)(layers.Concatenate()([first(image), loud(image)]))
    model = keras.Model(image, maps(both))
    first.set_weights([np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)])
    loud.set_weights([np.full((1, 1, 1, 1), loudness, np.float32), np.zeros(1, np.float32)])
    maps.set_weights(
        [
            np.array([[[[-4, 4], [0, 0]]]], np.float32).reshape(1, 1, 2, 2),
            np.array([-12, -20], np.float32),
        ]
    )
    return model


def loud_gate(loudness: float, *, before: int = 6, after: int = 0) -> keras.Model:
    """`level_gate` beside a channel that is as loud as that and that nobody listens to.

    In int8 the steps of the loud channel, loudness / 255, swallow what the others say, from the
    concatenation on. `before` it layers hand the image on and are harmless, `after` it they hand
    on all three channels and are not.
    """
    image = keras.Input((256, 256, 3))
    same = [layers.Conv2D(3, 1, activation="relu") for _ in range(before + after)]
    away, loud = layers.Conv2D(2, 1, activation="relu"), layers.Conv2D(1, 1)
    dense = layers.Dense(1)
    x = image
    for layer in same[:before]:
        x = layer(x)
    x = layers.Concatenate()([away(x), loud(x)])
    for layer in same[before:]:
        x = layer(x)
    x = layers.MaxPooling2D(32)(layers.AveragePooling2D(8)(x))
    model = keras.Model(image, dense(layers.Flatten()(x)))
    for layer in same:
        layer.set_weights([np.eye(3, dtype=np.float32)[None, None], np.zeros(3, np.float32)])
    grey = np.full((1, 1, 3, 1), 1 / 3, np.float32)
    away.set_weights([np.concatenate([grey, -grey], axis=3), np.array([-0.6, 0.2], np.float32)])
    loud.set_weights([grey * np.float32(loudness), np.zeros(1, np.float32)])
    dense.set_weights([np.array([[60], [60], [0]], np.float32), np.array([-6], np.float32)])
    return model


def cancelling_gate(loudness: float = 6000) -> keras.Model:
    """`level_gate` as a small difference of large numbers: float32 keeps it, nothing less does.

    Neither the weights fit float16 nor the signal the steps of int8, and most layers carry it.
    """
    image = keras.Input((256, 256, 3))
    sums, apart = layers.Conv2D(3, 1), layers.Conv2D(2, 1, activation="relu")
    same = [layers.Conv2D(3, 1) for _ in range(6)]
    dense = layers.Dense(1)
    x = sums(image)
    for layer in same:
        x = layer(x)
    x = layers.MaxPooling2D(32)(layers.AveragePooling2D(8)(apart(x)))
    model = keras.Model(image, dense(layers.Flatten()(x)))
    grey = np.full((1, 1, 3, 1), 1 / 3, np.float32)
    factors = [loudness + 1, loudness - 1, loudness / 3]
    offsets = np.array([-0.6, 0.2, 0], np.float32)
    sums.set_weights([np.concatenate([grey * np.float32(f) for f in factors], axis=3), offsets])
    for layer in same:
        layer.set_weights([np.eye(3, dtype=np.float32)[None, None], np.zeros(3, np.float32)])
    difference = np.array([[[[1, 0], [0, 1], [-3, -3]]]], np.float32)
    apart.set_weights([difference, np.zeros(2, np.float32)])
    dense.set_weights([np.full((2, 1), 60, np.float32), np.array([-6], np.float32)])
    return model
