"""Training of one network, from a data set to a `.keras` file in a run folder."""

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
import tensorflow as tf

from edge_agent.bundle.manifest import InputSpec
from training.config import TrainConfig, check
from training.errors import RunError
from training.fit import checkpoint, compile, data_sources, loop, run_folder, strategy
from training.fit.callbacks import BEST, LAST, EpochKeeper, ProgressBar
from training.fit.checkpoint import Progress
from training.input import batches
from training.networks import backbones
from workshop import model_card
from workshop.datasets import DataSet
from workshop.errors import WorkshopError
from workshop.splits import Split, lay


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Training job: stage, data, settings and run folder."""

    stage: batches.Stage
    dataset: DataSet
    split: Split
    config: TrainConfig
    out: Path
    strategy: strategy.Name = "one"
    resume: bool = False


def fit(job: Job) -> dict[str, Any]:
    """Train a network and write the run folder.

    The `.keras` file has the weights of the epoch with the lowest validation loss, or of the last
    epoch with `optimisation.keep` "last".

    Args:
        job: The training job.

    Returns:
        The content of `run.json`; on a worker that does not write it, its number and the epochs.

    Raises:
        WorkshopError: Data, settings or folder are invalid.
        RunError: The run failed after its start; its last checkpoint is kept.
    """
    began = time.monotonic()
    check(job.config, job.stage)
    run_folder.claim(job.out, resume=job.resume)
    indices = lay(job.split, job.dataset, for_training=True)
    sources = data_sources.sources(job.stage, job.config, job.dataset, indices)
    if not job.resume:
        data_sources.read_once(sources)
    digests = {i: job.dataset.digest(i) for i in (*indices.train, *indices.validation)}
    identity = _identity(job, sources, digests)
    where = strategy.open_strategy(job.strategy)
    chief = strategy.is_chief(where)
    progress = _progress(job, identity, chief=chief, source=sources["train"])
    keras.utils.set_random_seed(job.config.seed)
    if tf.config.list_physical_devices("GPU"):
        # Not on a CPU: its ops are deterministic already, and this setting slows them by a third.
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_dtype_policy(job.config.optimisation.precision)
    try:
        progress = _train(job, sources, where, progress, chief=chief)
    except tf.errors.OpError as error:
        raise RunError(f"--out: {job.out}: {_reason(error)}; continue with --resume") from None
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    if not chief:
        return {"worker": strategy.worker(where)[1], "epochs": progress.epochs}
    parameters = _write_models(job, sources["train"].spec, {*digests.values()})
    return run_folder.finish(job.out, progress, parameters, time.monotonic() - began)


def _reason(error: tf.errors.OpError) -> str:
    """Return the WorkshopError of an image inside TensorFlow's message, else its first line."""
    found = re.search(r"WorkshopError: (.+)", error.message)
    return found[1] if found else (error.message.strip().splitlines() or [type(error).__name__])[0]


def _identity(
    job: Job, sources: dict[str, batches.ImageSource], digests: dict[int, str]
) -> run_folder.RunIdentity:
    parts = {}
    for part, source in sources.items():
        lines = sorted(f"{source.dataset.samples[i].name} {digests[int(i)]}\n" for i in source.pick)
        parts[part] = hashlib.sha256("".join(lines).encode()).hexdigest()
    body = Path(job.config.network.backbone)
    if body.is_file():
        parts["backbone"] = hashlib.sha256(body.read_bytes()).hexdigest()
    return run_folder.RunIdentity(stage=job.stage, config=job.config, data_sha256=parts)


def _progress(
    job: Job, identity: run_folder.RunIdentity, *, chief: bool, source: batches.ImageSource
) -> Progress:
    """Start the run folder, or read the progress of the run to resume; return the progress.

    Raises WorkshopError if the folder holds a run with other settings or data.
    """
    if job.resume:
        kept = checkpoint.read(job.out / LAST).progress
        if kept.run_sha256 != identity.sha256:
            raise WorkshopError(
                f"--resume: {job.out}: started with {run_folder.difference(job.out, identity)}; "
                "use the same settings and data, or another --out"
            )
        return kept
    if chief:
        run_folder.begin(job.out, identity, job.split, job.dataset, source.spec)
    return Progress(run_sha256=identity.sha256)


def _train(
    job: Job,
    sources: dict[str, batches.ImageSource],
    where: tf.distribute.Strategy,
    progress: Progress,
    *,
    chief: bool,
) -> Progress:
    config, train = job.config, sources["train"]
    steps = max(1, len(batches.plan(train, config, 0)) // config.optimisation.batch)
    with where.scope():
        backbone = backbones.load(config.network.backbone)
        _, model = _network(job, backbone)
        if job.stage == "gate" and not progress.epochs:
            compile.standardise(model, train, config)
    stages, resumed = compile.phases(config), progress.epochs
    for phase in stages:
        if phase.end <= progress.epochs:
            continue
        with where.scope():
            compile.set_trainable(backbone, phase.fine_tune_from)
            compile.compile_for(model, config, phase, steps, train)
            model.optimizer.build(model.trainable_variables)
            if resumed and progress.epochs == resumed:
                _restore(model, job.out / LAST, progress, same_phase=resumed > phase.first)
        keeper = EpochKeeper(
            job.out if chief else None,
            progress,
            patience=config.optimisation.patience if phase is stages[-1] else None,
            names_of=lambda epoch, step: _names(train, config, epoch, step),
            keep_last=config.optimisation.keep == "last",
        )
        if not keeper.ended:
            weights = compile.gate_weights(train, config)
            loop.run(
                model,
                where,
                batches.training(
                    train, config, progress.epochs, steps, strategy.worker(where), weights
                ),
                batches.validation(sources["validation"], config),
                epochs=range(progress.epochs, phase.end),
                steps=steps,
                callbacks=list(_callbacks(job, keeper, steps, progress.epochs, chief=chief)),
            )
        progress = keeper.progress
    return progress


def _names(
    source: batches.ImageSource, config: TrainConfig, epoch: int, step: int
) -> tuple[str, ...]:
    """Return the names of the images in one step."""
    order, size = batches.plan(source, config, epoch), config.optimisation.batch
    picked = (order[k % len(order)] for k in range(step * size, (step + 1) * size))
    return tuple(source.dataset.samples[i].name for i in picked)


def _callbacks(
    job: Job, keeper: EpochKeeper, steps: int, done: int, *, chief: bool
) -> Iterator[keras.callbacks.Callback]:
    yield keeper
    if chief:
        yield ProgressBar(keeper, job.config.optimisation.epochs, steps, done)
        yield keras.callbacks.TensorBoard(job.out / "tensorboard", write_graph=False)


def _restore(model: keras.Model, path: Path, progress: Progress, *, same_phase: bool) -> None:
    """Load the last checkpoint into `model`; into its optimizer only within the same phase.

    Raises WorkshopError if the checkpoint is from another epoch than `progress`.
    """
    kept = checkpoint.read(path)
    if kept.progress.epochs != progress.epochs:
        raise WorkshopError(
            f"{path}: changed to epoch {kept.progress.epochs} during the start; end the other run"
        )
    checkpoint.assign(model.variables, kept.network)
    if same_phase:
        checkpoint.assign(model.optimizer.variables, kept.optimizer)


def _network(job: Job, backbone: keras.Model | None) -> tuple[keras.Model, keras.Model]:
    return compile.network(job.stage, job.config, len(job.dataset.class_names), backbone)


def _write_models(job: Job, spec: InputSpec, seen: set[str]) -> int:
    """Write the best weights to new float32 models; return the number of parameters.

    They have no optimizer, loss or strategy. The backbone is written too, for use in the other
    stage. Each model gets a card with the images it was trained on, including those of its
    backbone.
    """
    body = Path(job.config.network.backbone)
    inherited = model_card.read(body) if body.is_file() and zipfile.is_zipfile(body) else None
    own = model_card.ModelCard(
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


def _save(model: keras.Model, path: Path, described: model_card.ModelCard) -> None:
    model.save(path)
    model_card.write(path, described)
