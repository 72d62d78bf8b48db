"""Simulated strip as a data set: frames of seeded strips, rendered when they are read."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from edge_agent.frame import Image
from edge_agent.simulation.rolled_steel import CLASS_NAMES, SteelSettings, SteelStrip
from workshop.datasets.base import Planes, Sample
from workshop.errors import WorkshopError
from workshop.progress import counted

FRAME_LINES = 256
# Strips for training only. Calibration and tests use other ranges (see docs/internals.md, "Seeds"),
# so that no figure is reported on a strip used in training.
TRAIN_SEEDS = range(1_000, 2_000)
VALIDATION_SEEDS = range(2_000, 3_000)

MIN_DEFECT_PX = 500
"""Frames with fewer defect pixels than this, but some, teach nothing reliable: left out."""

_STRIPS_KEPT = 4
_SILENT = 200


class SimulatedDataSet:
    """Data set of the first `frames_per_strip` frames of each strip.

    Frames with a small defect (fewer than MIN_DEFECT_PX) are left out. Opening computes the labels,
    which takes some milliseconds a frame; reading renders.
    """

    def __init__(
        self, seeds: Sequence[int], frames_per_strip: int, settings: SteelSettings | None = None
    ) -> None:
        if not seeds or frames_per_strip < 1:
            raise WorkshopError("simulated: no frames; give at least one strip and one frame each")
        if len(set(seeds)) < len(seeds):
            raise WorkshopError("simulated: a strip's seed is there twice; give each once")
        self.name: str = "simulated"
        self.class_names: tuple[str, ...] = CLASS_NAMES
        self._settings = settings or SteelSettings()
        self._strips: OrderedDict[int, SteelStrip] = OrderedDict()
        self._at: list[tuple[int, int]] = []
        samples = []
        count = len(seeds) * frames_per_strip
        with counted(count, "labels", "frame", shown=count > _SILENT) as bar:
            for seed in seeds:
                for frame in range(frames_per_strip):
                    truth = self._strip(seed).truth(frame * FRAME_LINES, FRAME_LINES)
                    area = np.bincount(truth.ravel(), minlength=len(CLASS_NAMES) + 1)[1:]
                    bar.update()
                    if 0 < area.sum() < MIN_DEFECT_PX:
                        continue
                    ids = tuple(int(i) + 1 for i in np.flatnonzero(area))
                    samples.append(Sample(f"seed{seed}-frame{frame:06d}", bool(ids), ids))
                    self._at.append((seed, frame * FRAME_LINES))
        if not samples:
            raise WorkshopError("simulated: every frame has a sliver of a defect; take more frames")
        self.samples = tuple(samples)

    @staticmethod
    def seed(sample: Sample) -> int:
        """Return the seed of the strip that a sample is a frame of."""
        return int(sample.name.removeprefix("seed").partition("-")[0])

    def image(self, index: int) -> Image:
        """Render the image: uint8 (256, width)."""
        seed, line = self._at[index]
        return self._strip(seed).render(line, FRAME_LINES)

    def planes(self, index: int) -> Planes:
        """Return bool (256, width, 4): only the top defect where several overlap."""
        seed, line = self._at[index]
        truth = self._strip(seed).truth(line, FRAME_LINES)
        ids = np.arange(1, len(CLASS_NAMES) + 1, dtype=np.uint8)
        return np.asarray(truth[:, :, None] == ids, np.bool_)

    def digest(self, index: int) -> str:
        """Return the digest of settings, seed and frame name, which define the image."""
        text = f"{self._settings!r} {self._at[index][0]} {self.samples[index].name}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _strip(self, seed: int) -> SteelStrip:
        """Return the strip of `seed`; it caches its last blocks, so reading in order is fastest."""
        if seed not in self._strips:
            self._strips[seed] = SteelStrip(seed, self._settings)
            while len(self._strips) > _STRIPS_KEPT:
                self._strips.popitem(last=False)
        self._strips.move_to_end(seed)
        return self._strips[seed]
