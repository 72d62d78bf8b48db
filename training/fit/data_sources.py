"""Images of a run: input format, selection, and a check that all files are readable."""

from __future__ import annotations

import numpy as np

from edge_agent.bundle.manifest import InputSpec
from training.config import TrainConfig
from training.input import batches
from training.networks import backbones
from workshop.datasets import DataSet, SimulatedDataSet
from workshop.errors import WorkshopError
from workshop.progress import each
from workshop.splits import Indices


def input_spec(config: TrainConfig, stage: batches.Stage) -> InputSpec:
    """Return the input format of a stage.

    RGB in 0..1, or one standardised channel for a segmenter without a backbone.
    """
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
    """Select the images of the parts "train" and "validation".

    Defective images without a mask are left out where masks are the target: for the segmenter,
    and with tiles.

    Args:
        stage: "gate" or "segmenter".
        config: Settings of the run.
        dataset: All images.
        laid: Indices into `dataset` for each part.

    Returns:
        One source for each part, with ascending indices.

    Raises:
        WorkshopError: A part has no defect-free image (gate) or no drawn defect.
    """
    spec = input_spec(config, stage)
    found = {}
    for part, indices in (("train", laid.train), ("validation", laid.validation)):
        source = batches.ImageSource(dataset, np.array(indices, np.int64), stage, spec)
        kind = source.first_class
        if stage == "gate" and not (kind == 0).any():
            raise WorkshopError(f"{part}: no defect-free images; a gate needs some, add them")
        keep = np.full(len(kind), True)
        if stage == "segmenter" or spec.tiles is not None:
            keep = np.array([dataset.samples[i].drawn for i in source.pick])
            if not (keep & (kind != 0)).any():
                raise WorkshopError(f"{part}: no masks with defects; add masks, or train a gate")
        ratio = config.balance.clean_ratio
        if part == "validation" and ratio is not None:
            # The ratio of training, and the same images in each epoch, keep the losses comparable.
            clean = np.flatnonzero(kind == 0)
            count = min(len(clean), round(ratio * int((keep & (kind != 0)).sum())))
            keep[clean] = False
            keep[clean[np.linspace(0, len(clean) - 1, count).round().astype(int)]] = True
        found[part] = batches.ImageSource(dataset, source.pick[keep], stage, spec)
    return found


def read_once(parts: dict[str, batches.ImageSource]) -> None:
    """Read every image and mask once, so that an invalid file ends the run before it starts.

    Raises WorkshopError for the first invalid file.
    """
    for part, source in parts.items():
        if isinstance(source.dataset, SimulatedDataSet):
            continue
        slow = len(source.pick) > 200
        count = len(source.pick)
        for index in each(source.pick, f"checking {part}", "image", total=count, shown=slow):
            source.dataset.image(int(index))
            source.dataset.planes(int(index))
