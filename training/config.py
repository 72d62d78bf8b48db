"""What a training run is told: `train.toml` as one frozen tree.

The defaults are the seed's, but for `augment`: the seed changed nothing on its images.
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
_Some = Annotated[float, msgspec.Meta(gt=0)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class DataConfig(_Part, frozen=True, kw_only=True):
    """`class_names`: of the defect classes, 1 first; without them the data's own.

    `fractions` for training, validation and test where no split list is given. `strips` and
    `frames_per_strip` of the simulator, for `--data simulated`.
    """

    class_names: tuple[str, ...] = ()
    fractions: tuple[_Share, _Share, _Share] = (0.6, 0.15, 0.25)
    strips: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 64
    frames_per_strip: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100


class InputConfig(_Part, frozen=True, kw_only=True):
    """The network's input in px. With `tiles` it sees the frame piece by piece, at native size."""

    height: _Side = 256
    width: _Side = 256
    interpolation: Literal["area", "linear"] = "area"
    tiles: Tiles | None = None


class NetworkConfig(_Part, frozen=True, kw_only=True):
    """`width` multiplies every channel count. `backbone`: none, imagenet or a .keras file.

    `head` of the gate: the seed's, `pooled`, or `mapped`, which learns from masks too (see
    `networks.gate`). The last two look at the image twice with `half_turn`, the second time upside
    down: steadier, for twice the time on the line.

    A backbone is frozen for `frozen_epochs`; then its layers from `fine_tune_from` on (a prefix
    of the layer's name; "" for all) learn at `fine_tune_learning_rate`. 0 leaves it frozen.
    """

    width: Annotated[float, msgspec.Meta(gt=0, le=4)] = 1.0
    head: Literal["seed", "pooled", "mapped"] = "seed"
    half_turn: bool = False
    backbone: str = "none"
    frozen_epochs: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 5
    fine_tune_from: str = ""
    fine_tune_learning_rate: _NotNegative = 1e-4


class Optimisation(_Part, frozen=True, kw_only=True):
    """Nadam; the learning rate rises over 100 steps (a tenth of a short run) and falls to a
    hundredth along a cosine.

    The model is that of the epoch with the lowest validation loss, and training ends after
    `patience` epochs without a lower one; with `keep = "last"` it is that of the last epoch, for
    few validation images, whose loss is chance, and a learning rate that has come to rest.
    `precision` other than
    float32 is for GPUs (and bfloat16 units); the models come out in float32 all the same.
    """

    epochs: _Count = 100
    batch: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 16
    learning_rate: _Some = 1e-3
    patience: _Count = 20
    keep: Literal["best", "last"] = "best"
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"


class LossConfig(_Part, frozen=True, kw_only=True):
    """Of the segmenter: focal Tversky, plus `cross_entropy` times binary cross-entropy, plus
    `defect_cross_entropy` times that over the defect pixels alone (for few or small defects).

    `per_class` takes the Tversky index class by class, over the classes drawn on the image, so
    that a small defect weighs as much as a large one.
    """

    alpha: _NotNegative = 0.7
    beta: _NotNegative = 0.3
    gamma: _Some = 0.75
    smooth: _Some = 1e-6
    per_class: bool = False
    cross_entropy: _NotNegative = 0.0
    defect_cross_entropy: _NotNegative = 0.0


class Balance(_Part, frozen=True, kw_only=True):
    """Against rare classes. `class_weights`: errors on a class weigh by its rarity.

    `balanced_sampling`: every class (defect-free is one) is drawn equally often. `clean_ratio`:
    clean images an epoch per defective one; 0 leaves them out, which a gate cannot do. None: all.
    """

    class_weights: bool = False
    balanced_sampling: bool = False
    clean_ratio: _NotNegative | None = None


class Augment(_Part, frozen=True, kw_only=True):
    """Changes that leave a strip a strip. 0 or false switches one off.

    `brightness` and `contrast` are the largest change as a factor (0.2: from 1/1.2 to 1.2);
    `shift` and `zoom` are shares of the side; `copy_paste` is the share of images on which a
    defect of another image is pasted.
    """

    flip_along: bool = True
    flip_across: bool = True
    brightness: _NotNegative = 0.2
    contrast: _NotNegative = 0.2
    shift: _Share = 0.05
    zoom: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0
    copy_paste: _Share = 0.0


class TrainConfig(_Part, frozen=True, kw_only=True):
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    data: DataConfig = DataConfig()
    input: InputConfig = InputConfig()
    network: NetworkConfig = NetworkConfig()
    optimisation: Optimisation = Optimisation()
    loss: LossConfig = LossConfig()
    balance: Balance = Balance()
    augment: Augment = Augment()


def check(config: TrainConfig, stage: str) -> None:
    """What the types cannot say. Raises WorkshopError."""
    size = config.input
    if stage == "segmenter" and (size.height % 16 or size.width % 16):
        raise WorkshopError(
            f"input: {size.height}x{size.width}: the segmenter halves its input four times; "
            "take multiples of 16"
        )
    if stage == "gate" and min(size.height, size.width) < 128 and config.network.backbone == "none":
        raise WorkshopError(
            f"input: {size.height}x{size.width}: the gate needs at least 128 px a side"
        )
    if stage == "gate" and config.network.half_turn and config.network.head == "seed":
        raise WorkshopError(
            'network.half_turn: only with network.head = "pooled" or "mapped"; set that too'
        )
    mapped = stage == "gate" and config.network.head == "mapped"
    if mapped and (size.height % 32 or size.width % 32):
        raise WorkshopError(
            f"input: {size.height}x{size.width}: a gate that maps has cells of 32 px or 16; "
            "take multiples of 32"
        )
    loss = config.loss
    by_class = loss.per_class or loss.cross_entropy or loss.defect_cross_entropy
    if stage == "segmenter" and config.balance.class_weights and not by_class:
        raise WorkshopError(
            "balance.class_weights: the segmenter's loss has no term by class to weigh; set "
            "loss.per_class = true or loss.cross_entropy"
        )
    if stage == "gate" and config.balance.clean_ratio == 0:
        raise WorkshopError("balance.clean_ratio: 0: a gate needs clean images; leave it out")
    if stage == "gate" and config.augment.copy_paste and config.input.tiles is not None:
        raise WorkshopError("augment.copy_paste: not for a gate on tiles; set it to 0")
    check_fractions(config.data.fractions)
