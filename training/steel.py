"""Training sets rendered from the simulated strip, already at network size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_agent.camera.rolled_steel import CLASS_NAMES, SteelStrip
from edge_agent.frame import ClassMap
from edge_agent.preprocess import InputSpec, resize, scale

FRAME_LINES = 256
# Strips that training may look at. Calibration and tests take theirs from other ranges
# (see docs/architecture.md, "Seeds"), so that no figure is reported on a strip seen here.
TRAIN_SEEDS = range(1_000, 2_000)
VALIDATION_SEEDS = range(2_000, 3_000)

MIN_DEFECT_PX = 500
"""Frames with fewer defect pixels than this, but some, teach nothing reliable: left out."""


@dataclass(frozen=True, slots=True, eq=False)
class SteelSet:
    """Frames at network size: images uint8 (n, h, w), cover uint8 (n, h, w, 4), 255 = all defect.

    `defective` is bool (n,). `cover` is the share of each network pixel that each class covers;
    empty (n, 0, 0, 4) in a set made without masks.
    """

    images: NDArray[np.uint8]
    cover: NDArray[np.uint8]
    defective: NDArray[np.bool_]


def render_set(
    seeds: Sequence[int], frames_per_strip: int, *, clean_share: float, spec: InputSpec, masks: bool
) -> SteelSet:
    """Render strips; of the clean frames keep `clean_share` (0..1), chosen by the strip's seed."""
    images, covers, defective = [], [], []
    for seed in tqdm(seeds, desc="rendering strips", unit="strip", mininterval=5):
        strip, rng = SteelStrip(seed), np.random.default_rng(seed)
        for index in range(frames_per_strip):
            truth = strip.truth(index * FRAME_LINES, FRAME_LINES)
            area = int(np.count_nonzero(truth))
            if 0 < area < MIN_DEFECT_PX or (area == 0 and rng.uniform() >= clean_share):
                continue
            image = strip.render(index * FRAME_LINES, FRAME_LINES)
            images.append(resize(image, spec)[:, :, 0])
            covers.append(_cover(truth, spec) if masks else _NO_COVER)
            defective.append(area > 0)
    return SteelSet(np.stack(images), np.stack(covers), np.array(defective, np.bool_))


_NO_COVER: NDArray[np.uint8] = np.empty((0, 0, len(CLASS_NAMES)), np.uint8)


def _cover(truth: ClassMap, spec: InputSpec) -> NDArray[np.uint8]:
    planes = np.stack(
        [(truth == k) * np.uint8(255) for k in range(1, len(CLASS_NAMES) + 1)], axis=2
    )
    size = (spec.width, spec.height)
    return np.asarray(cv2.resize(planes, size, interpolation=cv2.INTER_AREA), np.uint8)


class SteelBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled batches with flips in both directions and a brightness change of up to 15 %."""

    def __init__(
        self, data: SteelSet, *, stage: str, spec: InputSpec, batch: int, seed: int, augment: bool
    ) -> None:
        super().__init__()
        self._data, self._stage, self._spec = data, stage, spec
        self._batch, self._augment = batch, augment
        self._rng = np.random.default_rng(seed)
        self._order = np.arange(len(data.images))
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch)

    def on_epoch_end(self) -> None:
        if self._augment:
            self._rng.shuffle(self._order)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pick = self._order[index * self._batch : (index + 1) * self._batch]
        x, y = self._data.images[pick], self._data.cover[pick]
        if self._augment:
            for axis in (1, 2):
                flip = self._rng.uniform(size=len(pick)) < 0.5
                x, y = (
                    np.where(flip.reshape(-1, *[1] * (a.ndim - 1)), np.flip(a, axis), a)
                    for a in (x, y)
                )
            gain = self._rng.uniform(0.85, 1.15, (len(pick), 1, 1))
            x = np.clip(x * gain + 0.5, 0, 255).astype(np.uint8)
        shape = (*x.shape[1:], self._spec.channels)
        inputs = np.concatenate(
            [scale(np.broadcast_to(one[:, :, None], shape), self._spec) for one in x]
        )
        if self._stage == "gate":
            return inputs, self._data.defective[pick, None].astype(np.float32)
        return inputs, y.astype(np.float32) / 255
