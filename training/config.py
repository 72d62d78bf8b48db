"""Configuration of a training run: `train.toml` as one frozen tree.

The defaults are those of the original networks, except `augment`: they had no augmentation.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge_agent.bundle.manifest import Tiles
from workshop.errors import WorkshopError
from workshop.splits import check_fractions

_Side = Annotated[int, msgspec.Meta(ge=16, le=4096)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section: unknown keys are errors."""


class DataConfig(_Section, frozen=True, kw_only=True):
    """Data settings: class names, shares of the parts, amount of simulated data.

    `class_names` lists the defect classes from number 1 on; if empty, the data set gives them.
    `fractions` are the shares of training, validation and test if no split list is given.
    `strips` and `frames_per_strip` apply to `--data simulated`.
    """

    class_names: tuple[str, ...] = ()
    fractions: tuple[_Share, _Share, _Share] = (0.6, 0.15, 0.25)
    strips: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 64
    frames_per_strip: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100


class InputConfig(_Section, frozen=True, kw_only=True):
    """Network input in px; with `tiles`, the network sees tiles of the frame at full size."""

    height: _Side = 256
    width: _Side = 256
    interpolation: Literal["area", "linear"] = "area"
    tiles: Tiles | None = None


class NetworkConfig(_Section, frozen=True, kw_only=True):
    """Network settings. `width` multiplies every channel count.

    `head` selects the head of the gate: `seed`, `pooled`, or `mapped`, which also learns from
    masks (see `networks.gate`). With `half_turn`, `pooled` and `mapped` also run on the image
    turned by 180 degrees and average both results: less noise, twice the time on the line.

    `backbone` is none, imagenet or a .keras file. It is frozen for `frozen_epochs`; then its
    layers from `fine_tune_from` on (a prefix of the layer name; "" for all) learn at
    `fine_tune_learning_rate`. A rate of 0 keeps it frozen.
    """

    width: Annotated[float, msgspec.Meta(gt=0, le=4)] = 1.0
    head: Literal["seed", "pooled", "mapped"] = "seed"
    half_turn: bool = False
    backbone: str = "none"
    frozen_epochs: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 5
    fine_tune_from: str = ""
    fine_tune_learning_rate: _NotNegative = 1e-4


class Optimisation(_Section, frozen=True, kw_only=True):
    """Optimiser settings: Nadam with warm-up and cosine decay.

    The learning rate rises over 100 steps (a tenth of a short run), then falls to 1 % of its
    maximum. With `keep = "best"`, the model is the one with the lowest validation loss, and
    training ends after `patience` epochs without improvement. With `keep = "last"`, it is the
    one after the last epoch: for few validation images, whose loss is mostly noise. `precision`
    other than float32 is for GPUs and bfloat16 units; the saved models are float32.
    """

    epochs: _Count = 100
    batch: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 16
    learning_rate: _Positive = 1e-3
    patience: _Count = 20
    keep: Literal["best", "last"] = "best"
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"


class LossConfig(_Section, frozen=True, kw_only=True):
    """Loss of the segmenter: focal Tversky loss plus weighted binary cross-entropy.

    `cross_entropy` is the weight over all pixels, `defect_cross_entropy` the weight over the
    defect pixels alone (for few or small defects). `per_class` computes the Tversky index for
    each class drawn on the image, so that a small defect weighs as much as a large one.
    """

    alpha: _NotNegative = 0.7
    beta: _NotNegative = 0.3
    gamma: _Positive = 0.75
    smooth: _Positive = 1e-6
    per_class: bool = False
    cross_entropy: _NotNegative = 0.0
    defect_cross_entropy: _NotNegative = 0.0


class Balance(_Section, frozen=True, kw_only=True):
    """Settings for rare classes.

    `class_weights` gives rare classes a higher weight in the loss. `balanced_sampling` samples
    every class equally often; defect-free counts as a class. `clean_ratio` is the number of clean
    images for each defective image in an epoch: None uses all, 0 none (not for a gate).
    """

    class_weights: bool = False
    balanced_sampling: bool = False
    clean_ratio: _NotNegative | None = None


class Augment(_Section, frozen=True, kw_only=True):
    """Augmentations that give plausible strip images; 0 or false disables one.

    `brightness` and `contrast` are the largest change as a factor (0.2: from 1/1.2 to 1.2).
    `shift` and `zoom` are shares of the side. `copy_paste` is the share of images that get a
    defect of another image.
    """

    flip_along: bool = True
    flip_across: bool = True
    brightness: _NotNegative = 0.2
    contrast: _NotNegative = 0.2
    shift: _Share = 0.05
    zoom: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0
    copy_paste: _Share = 0.0


class TrainConfig(_Section, frozen=True, kw_only=True):
    """Root of the configuration; `seed` fixes weights, order of images and augmentation."""

    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    data: DataConfig = DataConfig()
    input: InputConfig = InputConfig()
    network: NetworkConfig = NetworkConfig()
    optimisation: Optimisation = Optimisation()
    loss: LossConfig = LossConfig()
    balance: Balance = Balance()
    augment: Augment = Augment()


def check(config: TrainConfig, stage: str) -> None:
    """Check the settings that depend on each other or on the stage.

    Raises WorkshopError for the first invalid combination.
    """
    size = config.input
    if stage == "segmenter" and (size.height % 16 or size.width % 16):
        raise WorkshopError(
            f"input: {size.height}x{size.width}: the segmenter halves its input four times; "
            "use multiples of 16"
        )
    if stage == "gate" and min(size.height, size.width) < 128 and config.network.backbone == "none":
        raise WorkshopError(
            f"input: {size.height}x{size.width}: too small for the gate; use at least 128x128"
        )
    if stage == "gate" and config.network.half_turn and config.network.head == "seed":
        raise WorkshopError(
            'network.half_turn: needs network.head "pooled" or "mapped"; set one of them'
        )
    mapped = stage == "gate" and config.network.head == "mapped"
    if mapped and (size.height % 32 or size.width % 32):
        raise WorkshopError(
            f'input: {size.height}x{size.width}: head "mapped" divides its input by 32; '
            "use multiples of 32"
        )
    loss = config.loss
    by_class = loss.per_class or loss.cross_entropy or loss.defect_cross_entropy
    if stage == "segmenter" and config.balance.class_weights and not by_class:
        raise WorkshopError(
            "balance.class_weights: the loss of the segmenter has no term per class; set "
            "loss.per_class = true or loss.cross_entropy"
        )
    if stage == "gate" and config.balance.clean_ratio == 0:
        raise WorkshopError("balance.clean_ratio: 0: a gate needs clean images; remove the setting")
    if stage == "gate" and config.augment.copy_paste and config.input.tiles is not None:
        raise WorkshopError("augment.copy_paste: not available for a gate with tiles; set it to 0")
    check_fractions(config.data.fractions)
