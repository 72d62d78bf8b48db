"""Predictions of the trained networks with the preprocessing and the region rule of the line."""

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
    """Trained model; without a card, its input format is the one that edge-export assumes."""

    file: str
    source: source.FloatNetwork

    @property
    def spec(self) -> InputSpec:
        """Return the input format."""
        return self.source.spec

    @property
    def card(self) -> ModelCard | None:
        """Return the model card, or None if the file has none."""
        return self.source.card

    @property
    def sha256(self) -> str:
        """Return the digest of the file, in hex."""
        return self.source.sha256

    def run(self, image: Image) -> NDArray[np.float32]:
        """Run the model on the image or its tiles; return the outputs, float32 (n, ...).

        Raises ValueError if an output is not finite or if the image has too many tiles.
        """
        out = np.concatenate([self.source.run(x) for x in inputs(image, self.spec)])
        if not np.isfinite(out).all():
            raise ValueError(f"{self.file}: the output is not finite; train the model again")
        return out


def load(stage: Literal["gate", "segmenter"], path: Path) -> TrainedNetwork:
    """Load a .keras file and remove a final sigmoid of a gate; raise EdgeError if it is invalid."""
    return TrainedNetwork(path.name, source.load(stage, path))


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Outputs of the networks for one image of `shape` (lines, pixels).

    `logits` is float32 (n,), `maps` is float32 (n, h, w, classes), with n tiles or 1. They are
    None if the network is missing.
    """

    shape: tuple[int, int]
    logits: NDArray[np.float32] | None
    maps: NDArray[np.float32] | None

    @property
    def score(self) -> float | None:
        """Return the logit of the image, or None without a gate."""
        return None if self.logits is None else frame_score(self.logits.tolist())


class TrainedStages:
    """Stages as on the line: gate, segmenter or both, with the rule for regions."""

    def __init__(
        self, gate: TrainedNetwork | None, segmenter: TrainedNetwork | None, rule: RegionRule
    ) -> None:
        self.gate, self.segmenter, self.rule = gate, segmenter, rule

    def predict(self, image: Image) -> Prediction:
        """Run both networks, independent of the gate's result; raise as `TrainedNetwork.run`."""
        return Prediction(
            (image.shape[0], image.shape[1]),
            None if self.gate is None else self.gate.run(image).reshape(-1),
            None if self.segmenter is None else self.segmenter.run(image),
        )

    def pixels(self, prediction: Prediction) -> ClassMap:
        """Return the class map of the segmenter before the rule on areas, uint8 (lines, pixels).

        A pixel has its most probable class if that reaches the minimum probability, else 0.
        Raises ValueError without a segmenter.
        """
        return best_class(
            self._whole(prediction, None), prediction.shape, self.rule.min_probability
        )[1]

    def regions(self, prediction: Prediction) -> tuple[Region, ...]:
        """Return the regions of the segmenter alone; raise ValueError without a segmenter."""
        return regions(self._whole(prediction, None), prediction.shape, self.rule)

    def line(self, prediction: Prediction, threshold_logit: float) -> tuple[Region, ...]:
        """Return the regions of both stages, as Gate and Segmenter of the agent give them.

        There are none if the image is not suspect. If both stages use the same tiles, only
        suspect tiles count. Raises ValueError if a stage is missing.
        """
        if prediction.logits is None or prediction.score is None or self.gate is None:
            raise ValueError("no gate; load one")
        if not is_suspect(prediction.score, threshold_logit):
            return ()
        suspect = [
            box
            for box, one in zip(
                tile_boxes(prediction.shape, self.gate.spec), prediction.logits, strict=True
            )
            if is_suspect(float(one), threshold_logit)
        ]
        return regions(self._whole(prediction, suspect), prediction.shape, self.rule)

    def _whole(self, prediction: Prediction, suspect: Sequence[Box] | None) -> NDArray[np.float32]:
        """Return the probabilities (h, w, classes), at image size or, without tiles, input size."""
        if prediction.maps is None or self.segmenter is None:
            raise ValueError("no segmenter; load one")
        spec = self.segmenter.spec
        if spec.tiles is None:
            return np.asarray(prediction.maps[0])
        boxes = tile_boxes(prediction.shape, spec)
        if suspect and set(suspect) <= set(boxes):
            kept = [i for i, box in enumerate(boxes) if box in suspect]
            return stitch(prediction.maps[kept], prediction.shape, spec, [boxes[i] for i in kept])
        return stitch(prediction.maps, prediction.shape, spec, boxes)
