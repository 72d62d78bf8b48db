"""Train one of the two networks: data set, split and configuration in, a `.keras` file out."""

from __future__ import annotations

import hashlib
import re
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from edge_agent.preprocess import InputSpec
from training import backbones, card, checkpoint, loop, networks, runs, strategy, stream
from training.callbacks import BEST, LAST, Keeper, ProgressBar
from training.checkpoint import Progress
from training.config import TrainConfig, check
from training.datasets import DataSet, Simulated
from training.errors import RunFailed, TrainingError
from training.losses import FocalTversky, Pointing
from training.metrics import Dice, PointingAUC
from training.split import Indices, Split, lay

# A fresh Nadam at full rate throws a trained body about before it knows the gradients' size.
_WARM_UP_STEPS = 100


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs [first, end) with one learning rate; `learns` of the backbone: None, or a prefix."""

    first: int
    end: int
    learning_rate: float
    learns: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train on what, and where to put it."""

    stage: stream.Stage
    dataset: DataSet
    split: Split
    config: TrainConfig
    out: Path
    strategy: strategy.Name = "one"
    resume: bool = False


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


def input_spec(config: TrainConfig, stage: stream.Stage) -> InputSpec:
    """A backbone wants colour in 0..1; so does the seed's gate. Its segmenter standardises."""
    own = stage == "segmenter" and config.network.backbone == backbones.NONE
    return InputSpec(
        height=config.input.height,
        width=config.input.width,
        channels=1 if own else 3,
        scaling="standardise" if own else "unit",
        interpolation=config.input.interpolation,
        tiles=config.input.tiles,
    )


def fit(job: Job) -> dict[str, Any]:
    """Train and write the run folder; the figures that `run.json` holds. Raises TrainingError.

    The weights in the `.keras` file are those of the epoch with the lowest validation loss, or
    with `optimisation.keep` "last" those of the last epoch.
    """
    began = time.monotonic()
    check(job.config, job.stage)
    runs.claim(job.out, resume=job.resume)
    laid = lay(job.split, job.dataset, for_training=True)
    sources = _sources(job, laid)
    if not job.resume:
        _read_once(sources)
    digests = {i: job.dataset.digest(i) for i in (*laid.train, *laid.validation)}
    identity = _identity(job, sources, digests)
    where = strategy.open_strategy(job.strategy)
    chief = strategy.is_chief(where)
    progress = _progress(job, identity, chief=chief, source=sources["train"])
    keras.utils.set_random_seed(job.config.seed)
    if tf.config.list_physical_devices("GPU"):
        # On a CPU all ops used here are deterministic as they are, and a third faster so.
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_dtype_policy(job.config.optimisation.precision)
    try:
        progress = _train(job, sources, where, progress, chief=chief)
    except tf.errors.OpError as error:
        raise RunFailed(f"--out: {job.out}: {_reason(error)}; then --resume") from None
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    if not chief:
        return {"worker": strategy.worker(where)[1], "epochs": progress.epochs}
    parameters = _write_models(job, sources["train"].spec, {*digests.values()})
    return runs.finish(job.out, progress, parameters, time.monotonic() - began)


def _reason(error: tf.errors.OpError) -> str:
    """What an image's reader said, which TensorFlow hands on with a traceback; else its own."""
    said = re.search(r"TrainingError: (.+)", error.message)
    return said[1] if said else (error.message.strip().splitlines() or [type(error).__name__])[0]


def _sources(job: Job, laid: Indices) -> dict[str, stream.Source]:
    """Training and validation images, without those that would teach the wrong thing."""
    spec = input_spec(job.config, job.stage)
    sources = {}
    for part, indices in (("train", laid.train), ("validation", laid.validation)):
        source = stream.Source(job.dataset, np.array(indices, np.int64), job.stage, spec)
        kind = source.first_class
        if job.stage == "gate" and not (kind == 0).any():
            raise TrainingError(f"{part}: no image without a defect; a gate needs both")
        keep = np.full(len(kind), True)
        if job.stage == "segmenter" or spec.tiles is not None:
            keep = np.array([job.dataset.samples[i].drawn for i in source.pick])
            if not (keep & (kind != 0)).any():
                raise TrainingError(f"{part}: no defect is drawn; add masks, or train a gate")
        ratio = job.config.balance.clean_ratio
        if part == "validation" and ratio is not None:
            # The same mixture as in training, and the same images in each epoch.
            clean = np.flatnonzero(kind == 0)
            most = min(len(clean), round(ratio * int((keep & (kind != 0)).sum())))
            keep[clean] = False
            keep[clean[np.linspace(0, len(clean) - 1, most).round().astype(int)]] = True
        sources[part] = stream.Source(job.dataset, source.pick[keep], job.stage, spec)
    return sources


def _read_once(sources: dict[str, stream.Source]) -> None:
    """A mask that does not fit is found now, not in the middle of the night."""
    for part, source in sources.items():
        if isinstance(source.dataset, Simulated):
            continue
        slow = len(source.pick) > 200
        for index in tqdm(source.pick, desc=f"checking {part}", unit="image", disable=not slow):
            source.dataset.image(int(index))
            source.dataset.planes(int(index))


def _identity(
    job: Job, sources: dict[str, stream.Source], digests: dict[int, str]
) -> runs.Identity:
    parts = {}
    for part, source in sources.items():
        lines = sorted(f"{source.dataset.samples[i].name} {digests[int(i)]}\n" for i in source.pick)
        parts[part] = hashlib.sha256("".join(lines).encode()).hexdigest()
    body = Path(job.config.network.backbone)
    if body.is_file():
        parts["backbone"] = hashlib.sha256(body.read_bytes()).hexdigest()
    return runs.Identity(stage=job.stage, config=job.config, data_sha256=parts)


def _progress(job: Job, identity: runs.Identity, *, chief: bool, source: stream.Source) -> Progress:
    """Where the run stands: at its start, or after the last epoch of the folder's checkpoint."""
    if job.resume:
        kept = checkpoint.read(job.out / LAST).progress
        if kept.run_sha256 != identity.sha256:
            raise TrainingError(
                f"--resume: {job.out}: begun with {runs.difference(job.out, identity)}; "
                "give what it was begun with, or another --out"
            )
        return kept
    if chief:
        runs.begin(job.out, identity, job.split, job.dataset, source.spec)
    return Progress(run_sha256=identity.sha256)


def _train(
    job: Job,
    sources: dict[str, stream.Source],
    where: tf.distribute.Strategy,
    progress: Progress,
    *,
    chief: bool,
) -> Progress:
    config, train = job.config, sources["train"]
    steps = max(1, len(stream.plan(train, config, 0)) // config.optimisation.batch)
    with where.scope():
        backbone = backbones.load(config.network.backbone)
        _, model = _network(job, backbone)
        if job.stage == "gate" and not progress.epochs:
            _standardise(model, train, config)
    stages, resumed = phases(config), progress.epochs
    for phase in stages:
        if phase.end <= progress.epochs:
            continue
        with where.scope():
            _set_learning(backbone, phase.learns)
            _compile(model, job, phase, steps, train)
            model.optimizer.build(model.trainable_variables)
            if resumed and progress.epochs == resumed:
                _restore(model, job.out / LAST, progress, same_phase=resumed > phase.first)
        keeper = Keeper(
            job.out if chief else None,
            progress,
            patience=config.optimisation.patience if phase is stages[-1] else None,
            names_of=lambda epoch, step: _names(train, config, epoch, step),
            keep_last=config.optimisation.keep == "last",
        )
        if not keeper.ended:
            weights = _gate_weights(train, config)
            loop.run(
                model,
                where,
                stream.training(
                    train, config, progress.epochs, steps, strategy.worker(where), weights
                ),
                stream.validation(sources["validation"], config),
                epochs=range(progress.epochs, phase.end),
                steps=steps,
                callbacks=list(_callbacks(job, keeper, steps, progress.epochs, chief=chief)),
            )
        progress = keeper.progress
    return progress


def _standardise(model: keras.Model, train: stream.Source, config: TrainConfig) -> None:
    """Give what a gate's head reads mean 0 and deviation 1 over the training images as they are."""
    scales = [x for x in model.layers if x.name.startswith(networks.STANDARDISE)]
    if not scales:
        return
    read = keras.Model(model.input, [scale.input for scale in scales])
    count = np.zeros(len(scales))
    total: list[Any] = [0.0] * len(scales)
    squares: list[Any] = [0.0] * len(scales)
    for images, _ in stream.validation(train, config):
        for k, given in enumerate(keras.tree.flatten(read(images, training=False))):
            values = np.asarray(given, np.float64).reshape(-1, given.shape[-1])
            count[k] += len(values)
            total[k] = total[k] + values.sum(axis=0)
            squares[k] = squares[k] + (values**2).sum(axis=0)
    for k, scale in enumerate(scales):
        mean = total[k] / count[k]
        scale.moving_mean.assign(mean)
        scale.moving_variance.assign(np.maximum(squares[k] / count[k] - mean**2, 0))


def _names(source: stream.Source, config: TrainConfig, epoch: int, step: int) -> tuple[str, ...]:
    """The images of a step."""
    order, size = stream.plan(source, config, epoch), config.optimisation.batch
    picked = (order[k % len(order)] for k in range(step * size, (step + 1) * size))
    return tuple(source.dataset.samples[i].name for i in picked)


def _callbacks(
    job: Job, keeper: Keeper, steps: int, done: int, *, chief: bool
) -> Iterator[keras.callbacks.Callback]:
    yield keeper
    if chief:
        yield ProgressBar(keeper, job.config.optimisation.epochs, steps, done)
        yield keras.callbacks.TensorBoard(job.out / "tensorboard", write_graph=False)


def _network(job: Job, backbone: keras.Model | None) -> tuple[keras.Model, keras.Model]:
    """The network, and what is trained of it: the same, or more outputs of the same layers."""
    size = job.config.input
    common: dict[str, Any] = {
        "width": job.config.network.width,
        "height_px": size.height,
        "width_px": size.width,
    }
    head = job.config.network.head
    if job.stage == "gate" and head == "seed":
        model = networks.gate(**common, backbone=backbone)
        return model, model
    encoder = None if backbone is None else backbones.taps(backbone, size.height, size.width)
    if job.stage == "segmenter":
        classes = len(job.dataset.class_names)
        model = networks.segmenter(**common, classes=classes, backbone=encoder)
        return model, model
    turn = job.config.network.half_turn
    model = networks.gate(**common, backbone=encoder, head=head, half_turn=turn)
    return model, networks.taught(model, half_turn=turn) if head == "mapped" else model


def _set_learning(backbone: keras.Model | None, prefix: str | None) -> None:
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
            raise TrainingError(
                f"network.fine_tune_from: {prefix!r}: no layer of the backbone starts so; "
                f"its last ones are {', '.join(names[-3:])}"
            )
    backbone.trainable = True
    for k, layer in enumerate(backbone.layers):
        # Its batch norms keep what they learned on a large set, and stay in inference: Keras 3
        # hands training=True down to them whatever the call of the backbone said.
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = k >= start and not norm


def _compile(model: keras.Model, job: Job, phase: Phase, steps: int, train: stream.Source) -> None:
    total = steps * (phase.end - phase.first)
    warm = min(_WARM_UP_STEPS, total // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, total - warm, alpha=0.01, warmup_target=phase.learning_rate, warmup_steps=warm
    )
    optimizer: Any = keras.optimizers.Nadam(rate)
    if job.config.optimisation.precision == "mixed_float16":
        # Keras wraps only optimizers given by name.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    how = job.config.loss
    if job.stage == "gate":
        loss: keras.losses.Loss = keras.losses.BinaryCrossentropy(from_logits=True)
        area = keras.metrics.AUC
        if stream.learns_from_masks(job.stage, job.config):
            shape, grid = model.input_shape[1:3], model.get_layer(networks.CELLS).output.shape[1:3]
            loss, area = Pointing(shape=shape, grid=grid, mask=how.mask), PointingAUC
        curves = {"auroc": "ROC", "average_precision": "PR"}
        model.compile(
            optimizer,
            loss,
            metrics=[area(curve=c, from_logits=True, name=name) for name, c in curves.items()],
        )
        return
    weights = _class_weights(train) if job.config.balance.class_weights else None
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


def _class_weights(train: stream.Source) -> tuple[float, ...]:
    """Per defect class one over the root of its number of images, 1 in the mean."""
    present = [train.dataset.samples[i].class_ids for i in train.pick]
    counts = [
        max(1, sum(k in ids for ids in present))
        for k in range(1, len(train.dataset.class_names) + 1)
    ]
    weights = 1 / np.sqrt(counts)
    return tuple((weights / weights.mean()).tolist())


def _gate_weights(train: stream.Source, config: TrainConfig) -> tuple[float, float] | None:
    """Of a sound and of a defective image: together they weigh the same."""
    if not config.balance.class_weights or train.stage != "gate":
        return None
    share = float((train.first_class != 0).mean())
    return 0.5 / (1 - share), 0.5 / share


def _restore(model: keras.Model, path: Path, progress: Progress, *, same_phase: bool) -> None:
    """As after that epoch; a phase of its own begins with a fresh optimizer."""
    kept = checkpoint.read(path)
    if kept.progress.epochs != progress.epochs:
        raise TrainingError(f"{path}: of epoch {kept.progress.epochs}; another run writes there")
    checkpoint.assign(model.variables, kept.network)
    if same_phase:
        checkpoint.assign(model.optimizer.variables, kept.optimizer)


def _write_models(job: Job, spec: InputSpec, seen: set[str]) -> int:
    """The best weights in a fresh network: float32, without optimizer, loss or strategy.

    A backbone that learned is written too: what it learned of one stage helps the other. Each
    has a card of what it has seen, by way of its backbone too. Returns the number of parameters.
    """
    body = Path(job.config.network.backbone)
    inherited = card.read(body) if body.is_file() and zipfile.is_zipfile(body) else None
    own = card.Card(
        stage=job.stage,
        input=spec,
        class_names=job.dataset.class_names,
        seen=tuple(sorted(seen.union(() if inherited is None else inherited.seen))),
    )
    backbone = backbones.load(job.config.network.backbone)
    model, trained = _network(job, backbone)
    checkpoint.assign(trained.weights, checkpoint.read(job.out / BEST).network)
    _save(model, job.out / f"{job.stage}.keras", own)
    if backbone is not None:
        _save(backbone, job.out / "backbone.keras", msgspec.structs.replace(own, stage="backbone"))
    return int(model.count_params())


def _save(model: keras.Model, path: Path, described: card.Card) -> None:
    model.save(path)
    card.write(path, described)
