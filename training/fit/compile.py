"""What learns: the network, what of it is trained when, its loss, its optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from training.config import TrainConfig
from training.input import batches
from training.networks import backbones, networks
from training.networks.losses import FocalTversky, Pointing
from training.networks.metrics import Dice, PointingAUC
from workshop.errors import WorkshopError

# A fresh Nadam at full rate throws a trained body about before it knows the gradients' size.
_WARM_UP_STEPS = 100


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs [first, end) with one learning rate; `learns` of the backbone: None, or a prefix."""

    first: int
    end: int
    learning_rate: float
    learns: str | None


def phases(config: TrainConfig) -> tuple[Phase, ...]:
    """One without a backbone; with one first its head alone, then what may be fine-tuned."""
    epochs, rate, net = (
        config.optimisation.epochs,
        config.optimisation.learning_rate,
        config.network,
    )
    if net.backbone == backbones.NONE:
        return (Phase(0, epochs, rate, None),)
    frozen = epochs if net.fine_tune_learning_rate == 0 else min(net.frozen_epochs, epochs)
    both = (
        Phase(0, frozen, rate, None),
        Phase(frozen, epochs, net.fine_tune_learning_rate, net.fine_tune_from),
    )
    return tuple(phase for phase in both if phase.first < phase.end)


def network(
    stage: batches.Stage, config: TrainConfig, classes: int, backbone: keras.Model | None
) -> tuple[keras.Model, keras.Model]:
    """The network, and what is trained of it: the same, or more outputs of the same layers."""
    size = config.input
    common: dict[str, Any] = {
        "width": config.network.width,
        "height_px": size.height,
        "width_px": size.width,
    }
    head = config.network.head
    if stage == "gate" and head == "seed":
        model = networks.gate(**common, backbone=backbone)
        return model, model
    encoder = None if backbone is None else backbones.taps(backbone, size.height, size.width)
    if stage == "segmenter":
        model = networks.segmenter(**common, classes=classes, backbone=encoder)
        return model, model
    turn = config.network.half_turn
    model = networks.gate(**common, backbone=encoder, head=head, half_turn=turn)
    return model, networks.taught(model, half_turn=turn) if head == "mapped" else model


def standardise(model: keras.Model, train: batches.ImageSource, config: TrainConfig) -> None:
    """Give what a gate's head reads mean 0 and deviation 1 over the training images as they are."""
    scales = [x for x in model.layers if x.name.startswith(networks.STANDARDISE)]
    if not scales:
        return
    read = keras.Model(model.input, [scale.input for scale in scales])
    count = np.zeros(len(scales))
    total: list[Any] = [0.0] * len(scales)
    squares: list[Any] = [0.0] * len(scales)
    for images, _ in batches.validation(train, config):
        for k, given in enumerate(keras.tree.flatten(read(images, training=False))):
            values = np.asarray(given, np.float64).reshape(-1, given.shape[-1])
            count[k] += len(values)
            total[k] = total[k] + values.sum(axis=0)
            squares[k] = squares[k] + (values**2).sum(axis=0)
    for k, scale in enumerate(scales):
        mean = total[k] / count[k]
        scale.moving_mean.assign(mean)
        scale.moving_variance.assign(np.maximum(squares[k] / count[k] - mean**2, 0))


def set_learning(backbone: keras.Model | None, prefix: str | None) -> None:
    """Of the backbone, the layers from the first whose name starts with `prefix` on.

    But for its batch norms.
    """
    if backbone is None:
        return
    names = [layer.name for layer in backbone.layers]
    start = len(names)
    if prefix is not None:
        start = next((k for k, name in enumerate(names) if name.startswith(prefix)), -1)
        if start < 0:
            raise WorkshopError(
                f"network.fine_tune_from: {prefix!r}: no layer of the backbone starts so; "
                f"its last ones are {', '.join(names[-3:])}"
            )
    backbone.trainable = True
    for k, layer in enumerate(backbone.layers):
        # Its batch norms keep what they learned on a large set, and stay in inference: Keras 3
        # hands training=True down to them whatever the call of the backbone said.
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = k >= start and not norm


def compile_for(
    model: keras.Model, config: TrainConfig, phase: Phase, steps: int, train: batches.ImageSource
) -> None:
    """Give the model its loss, its metrics and an optimizer for the phase."""
    total = steps * (phase.end - phase.first)
    warm = min(_WARM_UP_STEPS, total // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, total - warm, alpha=0.01, warmup_target=phase.learning_rate, warmup_steps=warm
    )
    optimizer: Any = keras.optimizers.Nadam(rate)
    if config.optimisation.precision == "mixed_float16":
        # Keras wraps only optimizers given by name.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    how = config.loss
    if train.stage == "gate":
        loss: keras.losses.Loss = keras.losses.BinaryCrossentropy(from_logits=True)
        area = keras.metrics.AUC
        if batches.learns_from_masks(train.stage, config):
            shape, grid = model.input_shape[1:3], model.get_layer(networks.CELLS).output.shape[1:3]
            loss, area = Pointing(shape=shape, grid=grid), PointingAUC
        curves = {"auroc": "ROC", "average_precision": "PR"}
        model.compile(
            optimizer,
            loss,
            metrics=[area(curve=c, from_logits=True, name=name) for name, c in curves.items()],
        )
        return
    weights = _class_weights(train) if config.balance.class_weights else None
    loss = FocalTversky(
        alpha=how.alpha,
        beta=how.beta,
        gamma=how.gamma,
        smooth=how.smooth,
        per_class=how.per_class,
        cross_entropy=how.cross_entropy,
        defect_cross_entropy=how.defect_cross_entropy,
        class_weights=weights,
    )
    model.compile(optimizer, loss, metrics=[Dice()])


def gate_weights(train: batches.ImageSource, config: TrainConfig) -> tuple[float, float] | None:
    """Of a defect-free and of a defective image: together they weigh the same."""
    if not config.balance.class_weights or train.stage != "gate":
        return None
    share = float((train.first_class != 0).mean())
    return 0.5 / (1 - share), 0.5 / share


def _class_weights(train: batches.ImageSource) -> tuple[float, ...]:
    """Per defect class one over the root of its number of images, 1 in the mean."""
    present = [train.dataset.samples[i].class_ids for i in train.pick]
    counts = [
        max(1, sum(k in ids for ids in present))
        for k in range(1, len(train.dataset.class_names) + 1)
    ]
    weights = 1 / np.sqrt(counts)
    return tuple((weights / weights.mean()).tolist())
