"""First stage: one score a frame, clean or suspect."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_agent.frame import Image
from edge_agent.preprocess import InputSpec, prepare
from edge_agent.runtime import Choice

SEED_THRESHOLD_LOGIT = math.log(0.01 / 0.99)
"""The seed's threshold: a defect probability of 0.01."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's logit of "defective" and the threshold it was held against."""

    score_logit: float
    threshold_logit: float

    @property
    def suspect(self) -> bool:
        # A score that is not a number must never pass as clean.
        return not self.score_logit < self.threshold_logit


class Gate:
    def __init__(self, spec: InputSpec, choice: Choice) -> None:
        threshold = choice.artifact.threshold_logit
        self._threshold = SEED_THRESHOLD_LOGIT if threshold is None else threshold
        self._spec, self._runtime = spec, choice.runtime

    def judge(self, image: Image) -> Verdict:
        """`image` as in Frame. Raises what the runtime raises."""
        score = float(self._runtime.run(prepare(image, self._spec)).reshape(-1)[0])
        return Verdict(score, self._threshold)
