"""Gate, the first stage: one score per frame decides between clean and suspect.

With tiles, the frame's score is the highest score of its tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import InputSpec
from edge_agent.frame import Image
from edge_agent.inspection.preprocess import Box, inputs, tile_boxes
from edge_agent.inspection.runtime import ChosenArtifact

SEED_THRESHOLD_LOGIT = math.log(0.01 / 0.99)
"""Default threshold: a defect probability of 0.01."""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Gate's logit of "defective", with the threshold it was compared with.

    `suspect_tiles` are the boxes of the frame that reach the threshold themselves; without tiles
    the whole frame or none.
    """

    score_logit: float
    threshold_logit: float
    suspect_tiles: tuple[Box, ...] = ()

    @property
    def suspect(self) -> bool:
        """Return True if the score reaches the threshold or is not a number."""
        return is_suspect(self.score_logit, self.threshold_logit)


def is_suspect(score_logit: float, threshold_logit: float) -> bool:
    """Return True if the score reaches the threshold or is NaN."""
    # A score that is not a number must never pass as clean.
    return not score_logit < threshold_logit


def frame_score(tile_logits: Sequence[float]) -> float:
    """Return the highest tile logit; NaN if one of several is not finite.

    A tile with an invalid score may hold a defect, so the other tiles cannot clear the frame.
    """
    if len(tile_logits) > 1 and not np.isfinite(tile_logits).all():
        return math.nan
    return float(max(tile_logits))


def logit(output: NDArray[np.float32]) -> float:
    """Return the gate network's output for one input as a number."""
    return float(output.reshape(-1)[0])


class Gate:
    """Gate stage of a bundle: scores frames with the chosen artifact."""

    def __init__(self, spec: InputSpec, choice: ChosenArtifact) -> None:
        threshold = choice.artifact.threshold_logit
        self._threshold = SEED_THRESHOLD_LOGIT if threshold is None else threshold
        self._spec, self._runtime = spec, choice.runtime

    def judge(self, image: Image) -> GateDecision:
        """Score an image (as in `Frame`) tile by tile; re-raises the runtime's exceptions."""
        boxes = tile_boxes((image.shape[0], image.shape[1]), self._spec)
        scores = [logit(self._runtime.run(x)) for x in inputs(image, self._spec, boxes)]
        return GateDecision(
            frame_score(scores),
            self._threshold,
            tuple(
                box
                for box, score in zip(boxes, scores, strict=True)
                if is_suspect(score, self._threshold)
            ),
        )
