"""Batches from images on the disk; only names and labels stay in memory.

The images of an epoch depend on seed and epoch alone, so that a resumed run repeats them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge_agent.bundle.manifest import InputSpec
from edge_agent.frame import Image
from edge_agent.inspection.preprocess import Box, resize, scale, tile_boxes
from training.config import TrainConfig
from training.input.augment import Cover, augment, pasted
from workshop.datasets.base import DataSet, Planes

Stage = Literal["gate", "segmenter"]
_PARALLEL = 2


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """Images of one part; `pick` holds their indices in the data set, ascending, int64 (n,)."""

    dataset: DataSet
    pick: NDArray[np.int64]
    stage: Stage
    spec: InputSpec

    @property
    def first_class(self) -> NDArray[np.int64]:
        """Return the first class of each image, int64 (n,).

        It is 0 for a defect-free image and -1 for a defective image without a class.
        """
        samples = (self.dataset.samples[i] for i in self.pick)
        return np.array(
            [(s.class_ids[0] if s.class_ids else -1) if s.defective else 0 for s in samples],
            np.int64,
        )


def plan(source: ImageSource, config: TrainConfig, epoch: int) -> NDArray[np.int64]:
    """Return the images of epoch `epoch` (from 0) in order, as indices into the data set.

    The length is the same in every epoch: it depends on labels and configuration only.
    """
    rng = np.random.default_rng((config.seed, epoch, 1))
    kind = source.first_class
    clean, defective = np.flatnonzero(kind == 0), np.flatnonzero(kind != 0)
    ratio = config.balance.clean_ratio
    if ratio is not None:
        count = min(len(clean), round(ratio * len(defective)))
        clean = np.sort(rng.choice(clean, count, replace=False))
    pick = np.concatenate([clean, defective])
    if config.balance.balanced_sampling:
        share = _equal_shares(kind[pick], gate=source.stage == "gate")
        pick = rng.choice(pick, len(pick), p=share)
    return np.asarray(source.pick[rng.permutation(pick)])


def _equal_shares(kind: NDArray[np.int64], *, gate: bool) -> NDArray[np.float64]:
    """Return the probability of each image that makes all classes equally frequent.

    For a gate, half of the images are defect-free.
    """
    kinds, where, counts = np.unique(kind, return_inverse=True, return_counts=True)
    weight = np.ones(len(kinds))
    if gate and (kinds == 0).any() and len(kinds) > 1:
        weight[kinds != 0] = 1 / (len(kinds) - 1)
    share = (weight / counts)[where]
    return np.asarray(share / share.sum())


def example(
    source: ImageSource, index: int, *, rng: np.random.Generator | None, config: TrainConfig
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the inputs and targets of one image: all its tiles, or one augmented with `rng`.

    Args:
        source: The images.
        index: Index into the data set.
        rng: Source of tile and augmentation; None for validation.
        config: Settings of the run.

    Yields:
        The input (h, w, c) and the target, both float32. The target of a segmenter is the
        coverage (h, w, classes) in 0..1. The target of a gate is (1,), 1 for defective. For a gate
        that learns from masks it is (1 + h * w,), followed by the coverage by any class, or by -1
        if the masks are unknown.

    Raises:
        WorkshopError: The image or its mask cannot be read.
    """
    image = source.dataset.image(index)
    mapped = learns_from_masks(source.stage, config)
    label_suffices = source.stage == "gate" and source.spec.tiles is None and not mapped
    # Do not read the mask if the label alone gives the target.
    planes = np.zeros((*image.shape[:2], len(source.dataset.class_names)), np.bool_)
    if not label_suffices or (rng is not None and config.augment.copy_paste):
        planes = source.dataset.planes(index)
    spec, defective = source.spec, source.dataset.samples[index].defective
    boxes = tile_boxes((image.shape[0], image.shape[1]), spec)
    if rng is not None and len(boxes) > 1:
        boxes = (_random_tile(boxes, planes, rng),)
    for box in boxes:
        view, cover = network_view(image, planes, box, spec)
        if spec.tiles is not None:
            defective = bool(planes[box.slices].any())
        if rng is not None:
            if config.augment.copy_paste and rng.uniform() < config.augment.copy_paste:
                view, cover = _with_paste(source, view, cover, rng)
                defective = defective or bool(cover.any())
            view, cover = augment(view, cover, config.augment, rng)
        if source.stage == "segmenter":
            target: NDArray[np.float32] = cover.astype(np.float32) / np.float32(255)
        else:
            target = np.array([defective], np.float32)
        if mapped:
            # A defect without a mask, or shifted out of the image, must not be learned as
            # defect-free, even if another defect was pasted into the same image.
            known = source.dataset.samples[index].drawn and (cover.any() or not defective)
            where = cover.max(axis=2).reshape(-1).astype(np.float32) / np.float32(255)
            target = np.append(target, where if known else np.full_like(where, -1))
        yield scale(view, spec)[0], target


def learns_from_masks(stage: Stage, config: TrainConfig) -> bool:
    """Return True if the target of a gate has a map beside the label."""
    return stage == "gate" and config.network.head == "mapped"


def network_view(image: Image, planes: Planes, box: Box, spec: InputSpec) -> tuple[Image, Cover]:
    """Cut a tile and resize it to network size.

    Args:
        image: uint8 (lines, pixels, channels) or (lines, pixels).
        planes: Masks, bool (lines, pixels, classes).
        box: The tile, in pixels of the image.
        spec: Input format of the network.

    Returns:
        The tile before scaling, uint8, and its coverage, uint8 (h, w, classes).
    """
    view = resize(image[box.slices], spec)
    part = planes[box.slices]
    cover = np.zeros((spec.height, spec.width, planes.shape[2]), np.uint8)
    for k in range(planes.shape[2]):
        if part[:, :, k].any():
            plane = part[:, :, k].astype(np.uint8) * 255
            cover[:, :, k] = cv2.resize(
                plane, (spec.width, spec.height), interpolation=cv2.INTER_AREA
            )
    return view, cover


def _random_tile(boxes: tuple[Box, ...], planes: Planes, rng: np.random.Generator) -> Box:
    """Choose one tile; on a defective image, with probability 1/2 among tiles with a defect."""
    defective = [box for box in boxes if planes[box.slices].any()]
    pool = defective if defective and rng.uniform() < 0.5 else boxes
    return pool[int(rng.integers(len(pool)))]


def _with_paste(
    source: ImageSource, view: Image, cover: Cover, rng: np.random.Generator
) -> tuple[Image, Cover]:
    drawn = np.flatnonzero(source.first_class > 0)
    if not len(drawn):
        return view, cover
    index = int(source.pick[rng.choice(drawn)])
    image, planes = source.dataset.image(index), source.dataset.planes(index)
    boxes = tile_boxes((image.shape[0], image.shape[1]), source.spec)
    box = _random_tile(boxes, planes, rng)
    return pasted(view, cover, *network_view(image, planes, box, source.spec), rng)


def training(
    source: ImageSource,
    config: TrainConfig,
    first_epoch: int,
    steps: int,
    worker: tuple[int, int] = (1, 0),
    weights: tuple[float, float] | None = None,
) -> tf.data.Dataset:
    """Make endless training batches, `steps` full batches for each epoch.

    Args:
        source: The training images.
        config: Settings of the run.
        first_epoch: Epoch of the first batch, from 0.
        steps: Batches in an epoch.
        worker: Number of workers and index of this one; each reads its own images only.
        weights: Sample weights of a defect-free and of a defective image, for a gate.

    Returns:
        A data set of (input, target) or (input, target, weight), see `example`.
    """
    batch = config.optimisation.batch

    def positions() -> Iterator[tuple[int, int, int]]:
        epoch = first_epoch
        while True:
            order = plan(source, config, epoch)
            # Start over within an epoch, because a small set may have fewer images than a batch.
            for position in range(steps * batch):
                yield epoch, position, int(order[position % len(order)])
            epoch += 1

    def load(epoch: int, position: int, index: int) -> tuple[NDArray[np.float32], ...]:
        rng = np.random.default_rng((config.seed, int(epoch), int(position), 2))
        return next(example(source, int(index), rng=rng, config=config))

    index = tf.TensorSpec((), tf.int64)
    data = tf.data.Dataset.from_generator(positions, output_signature=(index, index, index))
    data = data.shard(*worker)
    x, y = _signature(source, config)

    def loaded(*at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Stateless, or deterministic execution would load one image at a time.
        image, target = tf.numpy_function(load, at, (tf.float32, tf.float32), stateful=False)
        return tf.ensure_shape(image, x.shape), tf.ensure_shape(target, y.shape)

    data = data.map(loaded, num_parallel_calls=_PARALLEL, deterministic=True)
    if weights is not None:
        clean, defective = weights
        data = data.map(lambda x, y: (x, y, tf.where(y > 0.5, defective, clean)[0]))
    return _unsharded(data.batch(batch, drop_remainder=True).prefetch(2))


def validation(source: ImageSource, config: TrainConfig) -> tf.data.Dataset:
    """Make validation batches: every tile of every image once, in order, without augmentation."""

    def examples() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        for index in source.pick:
            yield from example(source, int(index), rng=None, config=config)

    data = tf.data.Dataset.from_generator(examples, output_signature=_signature(source, config))
    return _unsharded(data.batch(config.optimisation.batch).prefetch(1))


def _unsharded(data: tf.data.Dataset) -> tf.data.Dataset:
    """Disable automatic sharding: it needs files, and a generator has none."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.with_options(options)


def _signature(source: ImageSource, config: TrainConfig) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    size = (source.spec.height, source.spec.width)
    target: tuple[int, ...] = (*size, len(source.dataset.class_names))
    if source.stage == "gate":
        target = (1 + size[0] * size[1] * learns_from_masks("gate", config),)
    return (
        tf.TensorSpec((*size, source.spec.channels), tf.float32),
        tf.TensorSpec(target, tf.float32),
    )
