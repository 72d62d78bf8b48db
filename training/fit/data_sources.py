"""The images of a run: which of them teach, in what size, and that all of them can be read."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from edge_agent.bundle.manifest import InputSpec
from training.config import TrainConfig
from training.input import batches
from training.networks import backbones
from workshop.datasets import DataSet, SimulatedDataSet
from workshop.errors import WorkshopError
from workshop.splits import Indices


def input_spec(config: TrainConfig, stage: batches.Stage) -> InputSpec:
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


def sources(
    stage: batches.Stage, config: TrainConfig, dataset: DataSet, laid: Indices
) -> dict[str, batches.ImageSource]:
    """Training and validation images, without those that would teach the wrong thing."""
    spec = input_spec(config, stage)
    found = {}
    for part, indices in (("train", laid.train), ("validation", laid.validation)):
        source = batches.ImageSource(dataset, np.array(indices, np.int64), stage, spec)
        kind = source.first_class
        if stage == "gate" and not (kind == 0).any():
            raise WorkshopError(f"{part}: no image without a defect; a gate needs both")
        keep = np.full(len(kind), True)
        if stage == "segmenter" or spec.tiles is not None:
            keep = np.array([dataset.samples[i].drawn for i in source.pick])
            if not (keep & (kind != 0)).any():
                raise WorkshopError(f"{part}: no defect is drawn; add masks, or train a gate")
        ratio = config.balance.clean_ratio
        if part == "validation" and ratio is not None:
            # The same mixture as in training, and the same images in each epoch.
            clean = np.flatnonzero(kind == 0)
            most = min(len(clean), round(ratio * int((keep & (kind != 0)).sum())))
            keep[clean] = False
            keep[clean[np.linspace(0, len(clean) - 1, most).round().astype(int)]] = True
        found[part] = batches.ImageSource(dataset, source.pick[keep], stage, spec)
    return found


def read_once(parts: dict[str, batches.ImageSource]) -> None:
    """A mask that does not fit is found now, not in the middle of the night."""
    for part, source in parts.items():
        if isinstance(source.dataset, SimulatedDataSet):
            continue
        slow = len(source.pick) > 200
        for index in tqdm(source.pick, desc=f"checking {part}", unit="image", disable=not slow):
            source.dataset.image(int(index))
            source.dataset.planes(int(index))
