"""Compilation: network, trainable layers in each phase, loss, metrics and optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from training.config import TrainConfig
from training.input import batches
from training.networks import backbones, networks
from training.networks.losses import FocalTversky, MixedSupervision
from training.networks.metrics import Dice, MixedSupervisionAUC
from workshop.errors import WorkshopError

# At full rate, the first steps of Nadam change a trained backbone too much, because its estimate
# of the gradients is still poor.
_WARM_UP_STEPS = 100


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs [first, end) with one learning rate.

    `fine_tune_from` is the prefix of the first trainable layer of the backbone; None freezes it.
    """

    first: int
    end: int
    learning_rate: float
    fine_tune_from: str | None


def phases(config: TrainConfig) -> tuple[Phase, ...]:
    """Return the phases of a run: with a backbone first the head alone, then fine-tuning."""
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
    """Build the network of a stage.

    Args:
        stage: "gate" or "segmenter".
        config: Input and network settings.
        classes: Number of defect classes.
        backbone: Headless model (see `backbones.load`), or None.

    Returns:
        The network and the model to train. Both share all layers; the model to train of a gate
        with head "mapped" has more outputs (see `networks.training_model`).

    Raises:
        WorkshopError: The backbone lacks a feature map that the network needs.
    """
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
    return model, networks.training_model(model, half_turn=turn) if head == "mapped" else model


def standardise(model: keras.Model, train: batches.ImageSource, config: TrainConfig) -> None:
    """Set the standardisation layers of a gate from the training images without augmentation.

    Their outputs then have mean 0 and standard deviation 1 over these images. A model without
    such layers stays as it is.
    """
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


def set_trainable(backbone: keras.Model | None, prefix: str | None) -> None:
    """Make the backbone trainable from its first layer whose name starts with `prefix`.

    Batch norms stay frozen; with `prefix` None, all layers do. Raises WorkshopError if no layer
    has the prefix.
    """
    if backbone is None:
        return
    names = [layer.name for layer in backbone.layers]
    start = len(names)
    if prefix is not None:
        start = next((k for k, name in enumerate(names) if name.startswith(prefix)), -1)
        if start < 0:
            raise WorkshopError(
                f"network.fine_tune_from: {prefix!r}: no layer of the backbone has this "
                f"prefix; use one like those of its last layers, {', '.join(names[-3:])}"
            )
    backbone.trainable = True
    for k, layer in enumerate(backbone.layers):
        # Frozen batch norms keep the statistics of a large data set and stay in inference mode:
        # Keras 3 passes training=True to them even if the backbone was called with False.
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = k >= start and not norm


def compile_for(
    model: keras.Model, config: TrainConfig, phase: Phase, steps: int, train: batches.ImageSource
) -> None:
    """Compile `model` for one phase, with the loss and the metrics of the stage.

    Args:
        model: The model to train, from `network`.
        config: Settings of the loss and the optimiser.
        phase: Epochs and learning rate.
        steps: Batches in an epoch.
        train: Training images; they give the stage and the class weights.
    """
    total = steps * (phase.end - phase.first)
    warm = min(_WARM_UP_STEPS, total // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, total - warm, alpha=0.01, warmup_target=phase.learning_rate, warmup_steps=warm
    )
    optimizer: Any = keras.optimizers.Nadam(rate)
    if config.optimisation.precision == "mixed_float16":
        # Keras adds loss scaling only to optimizers given by name.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    how = config.loss
    if train.stage == "gate":
        loss: keras.losses.Loss = keras.losses.BinaryCrossentropy(from_logits=True)
        area = keras.metrics.AUC
        if batches.learns_from_masks(train.stage, config):
            shape, grid = model.input_shape[1:3], model.get_layer(networks.CELLS).output.shape[1:3]
            loss, area = MixedSupervision(shape=shape, grid=grid), MixedSupervisionAUC
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
    """Return the weights of a defect-free and of a defective image, or None without weights.

    They give both groups the same total weight.
    """
    if not config.balance.class_weights or train.stage != "gate":
        return None
    share = float((train.first_class != 0).mean())
    return 0.5 / (1 - share), 0.5 / share


def _class_weights(train: batches.ImageSource) -> tuple[float, ...]:
    """Return one weight per defect class, 1 / sqrt(images), scaled to a mean of 1."""
    present = [train.dataset.samples[i].class_ids for i in train.pick]
    counts = [
        max(1, sum(k in ids for ids in present))
        for k in range(1, len(train.dataset.class_names) + 1)
    ]
    weights = 1 / np.sqrt(counts)
    return tuple((weights / weights.mean()).tolist())
