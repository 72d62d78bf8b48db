"""Scores of networks on labelled images: gate logit or segmenter Dice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input, InputSpec, RegionRule
from edge_agent.frame import Image
from edge_agent.inspection.gate import frame_score, logit
from edge_agent.inspection.preprocess import inputs, stitch, tile_boxes
from edge_agent.inspection.segmenter import class_map, regions
from workshop.datasets import DataSet, Planes
from workshop.errors import WorkshopError
from workshop.progress import each
from workshop.segmentation_metrics import Components, image_dice, outcome

Network = Callable[[Input], NDArray[np.float32]]
"""Maps one input (1, h, w, c) to one output, as the agent's runtimes do."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of one network on the images of one set, each array (n,).

    `values`: the gate's logit of the frame, or the Dice of the segmenter's regions (mean over the
    classes drawn on the image, as in training); NaN if the network returned no number.
    `differences` are from the first network: of the logit, or of the mean of the probabilities. A
    segmenter is scored only on images with a drawn defect.
    """

    names: tuple[str, ...]
    defective: NDArray[np.bool_]
    values: Floats
    differences: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Scorer:
    """Scorer of one stage's networks on labelled images."""

    stage: str
    spec: InputSpec
    rule: RegionRule
    data: DataSet

    def ask(
        self, networks: Sequence[Network], images: Sequence[int], what: str
    ) -> tuple[Scores, ...]:
        """Return the scores of each network on each image; one image is in memory at a time.

        `what` names the work on the progress bar. Raises WorkshopError if a frame gives too many
        tiles.
        """
        if self.stage == "segmenter":
            images = [i for i in images if self._drawn(i)]
        values = np.empty((len(networks), len(images)))
        differences = np.empty_like(values)
        for column, index in enumerate(each(images, what, "image", total=len(images), kept=False)):
            values[:, column], differences[:, column] = self._one(networks, index)
        names = tuple(self.data.samples[i].name for i in images)
        defective = np.array([self.data.samples[i].defective for i in images], np.bool_)
        return tuple(Scores(names, defective, *r) for r in zip(values, differences, strict=True))

    def reference(self, scores: Scores) -> Scores:
        """Return the scores of float Keras; raise WorkshopError if one is not a number."""
        if not (good := np.isfinite(scores.values)).all():
            name = scores.names[int((~good).argmax())]
            raise WorkshopError(f"--{self.stage}: no number for {name}; train it again")
        return scores

    def _drawn(self, index: int) -> bool:
        sample = self.data.samples[index]
        return sample.defective and sample.drawn

    def _one(self, networks: Sequence[Network], index: int) -> tuple[list[float], list[float]]:
        image = self.data.image(index)
        shape = (image.shape[0], image.shape[1])
        try:
            boxes = tile_boxes(shape, self.spec)
        except ValueError as error:
            name = self.data.samples[index].name
            raise WorkshopError(f"--data: {name}: {error}") from None
        outputs = [[n(x) for n in networks] for x in inputs(image, self.spec, boxes)]
        of_each = list(zip(*outputs, strict=True))
        if self.stage == "gate":
            scores = [frame_score([logit(tile) for tile in tiles]) for tiles in of_each]
            return scores, [abs(score - scores[0]) for score in scores]
        planes = self.data.planes(index)
        parts = Components(planes)
        dices = [self._dice(self._joined(m, shape), shape, planes, parts) for m in of_each]
        apart = [np.abs(np.stack(maps) - np.stack(of_each[0])).mean() for maps in of_each]
        return dices, [float(one) for one in apart]

    def whole(self, network: Network, image: Image) -> NDArray[np.float32]:
        """Return a segmenter's maps of an image, (h, w, classes), merged as on the line."""
        outputs = [network(x) for x in inputs(image, self.spec)]
        return self._joined(outputs, (image.shape[0], image.shape[1]))

    def _joined(
        self, outputs: Sequence[NDArray[np.float32]], shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        maps = [one[0] for one in outputs]
        return maps[0] if self.spec.tiles is None else stitch(maps, shape, self.spec)

    def _dice(
        self,
        whole: NDArray[np.float32],
        shape: tuple[int, int],
        planes: Planes,
        parts: Components,
    ) -> float:
        if not np.isfinite(whole).all():
            return float("nan")
        found = regions(whole, shape, self.rule)
        dice = image_dice(outcome(planes, class_map(found, shape), len(found), parts))
        return float("nan") if dice is None else dice
