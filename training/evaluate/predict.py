"""The two trained networks on one image, with the line's own preprocessing and rule for regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import InputSpec, RegionRule
from edge_agent.frame import ClassMap, Image, Region
from edge_agent.inspection.gate import frame_score, is_suspect
from edge_agent.inspection.preprocess import Box, inputs, stitch, tile_boxes
from edge_agent.inspection.segmenter import best_class, regions
from workshop.keras_models import load as source
from workshop.model_card import ModelCard


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """A trained model. Without a card its input is what edge-export would take it to be."""

    file: str
    source: source.FloatNetwork

    @property
    def spec(self) -> InputSpec:
        return self.source.spec

    @property
    def card(self) -> ModelCard | None:
        return self.source.card

    @property
    def sha256(self) -> str:
        return self.source.sha256

    def run(self, image: Image) -> NDArray[np.float32]:
        """Outputs for the image or its tiles, float32 (n, ...).

        ValueError if an output is not a finite number, or if there would be too many tiles.
        """
        out = np.concatenate([self.source.run(x) for x in inputs(image, self.spec)])
        if not np.isfinite(out).all():
            raise ValueError(f"{self.file}: the output is not a number")
        return out


def load(stage: Literal["gate", "segmenter"], path: Path) -> TrainedNetwork:
    """A .keras file; a gate that ends in a sigmoid loses it. Raises EdgeError."""
    return TrainedNetwork(path.name, source.load(stage, path))


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the networks that are there say of one image.

    `logits` is float32 (n,), `maps` float32 (n, h, w, classes), n the number of tiles or 1.
    """

    shape: tuple[int, int]
    logits: NDArray[np.float32] | None
    maps: NDArray[np.float32] | None

    @property
    def score(self) -> float | None:
        """The gate's logit of the image."""
        return None if self.logits is None else frame_score(self.logits.tolist())


class TrainedStages:
    """Gate, segmenter or both, and the rule for regions: the line as it will be."""

    def __init__(
        self, gate: TrainedNetwork | None, segmenter: TrainedNetwork | None, rule: RegionRule
    ) -> None:
        self.gate, self.segmenter, self.rule = gate, segmenter, rule

    def look(self, image: Image) -> Prediction:
        """Both networks, whatever the gate says. ValueError as `TrainedNetwork.run`."""
        return Prediction(
            (image.shape[0], image.shape[1]),
            None if self.gate is None else self.gate.run(image).reshape(-1),
            None if self.segmenter is None else self.segmenter.run(image),
        )

    def pixels(self, look: Prediction) -> ClassMap:
        """The segmenter alone, each pixel on its own: its most probable class, if that reaches
        the rule's least probability. What `regions` starts from, areas of any size."""
        return best_class(self._whole(look, None), look.shape, self.rule.min_probability)[1]

    def regions(self, look: Prediction) -> tuple[Region, ...]:
        """The segmenter alone, under the rule."""
        return regions(self._whole(look, None), look.shape, self.rule)

    def line(self, look: Prediction, threshold_logit: float) -> tuple[Region, ...]:
        """Both stages, as `edge_agent`'s Gate and Segmenter: nothing where the gate sees nothing,
        and only suspect tiles where both stages look at the same ones."""
        if look.logits is None or look.score is None or self.gate is None:
            raise ValueError("there is no gate")
        if not is_suspect(look.score, threshold_logit):
            return ()
        suspect = [
            box
            for box, one in zip(tile_boxes(look.shape, self.gate.spec), look.logits, strict=True)
            if is_suspect(float(one), threshold_logit)
        ]
        return regions(self._whole(look, suspect), look.shape, self.rule)

    def _whole(self, look: Prediction, suspect: Sequence[Box] | None) -> NDArray[np.float32]:
        """Probabilities (h, w, classes): of the frame, or, without tiles, still to be resized."""
        if look.maps is None or self.segmenter is None:
            raise ValueError("there is no segmenter")
        spec = self.segmenter.spec
        if spec.tiles is None:
            return np.asarray(look.maps[0])
        boxes = tile_boxes(look.shape, spec)
        if suspect and set(suspect) <= set(boxes):
            kept = [i for i, box in enumerate(boxes) if box in suspect]
            return stitch(look.maps[kept], look.shape, spec, [boxes[i] for i in kept])
        return stitch(look.maps, look.shape, spec, boxes)
