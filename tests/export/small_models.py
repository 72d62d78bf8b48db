"""Keras models small enough to export in seconds."""

import keras
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


def small_segmenter(maps: int = 4) -> keras.Model:
    keras.utils.set_random_seed(4)
    image = keras.Input((64, 64, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    y = layers.UpSampling2D(2)(layers.Conv2D(8, 3, padding="same")(layers.MaxPooling2D(2)(x)))
    x = layers.Concatenate()([x, y])
    return keras.Model(image, layers.Conv2D(maps, 1, activation="sigmoid")(x))
