"""Rule for a gate's threshold, shared by calibration and the exporter's criteria. Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def choose(scores: NDArray[np.float64], defective: NDArray[np.bool_], miss_rate: float) -> float:
    """Return the highest threshold that misses at most `miss_rate` (0..1) of the defective scores.

    `scores` are logits, shape (n,). Half of the distance to the next score below is subtracted as
    margin, at most 1: the next defect will not have exactly the same score.
    """
    found = np.sort(scores[defective])
    allowed = math.floor(miss_rate * len(found) + 1e-9)
    lowest = float(found[allowed])
    below = scores[scores < lowest]
    distance = lowest - float(below.max()) if below.size else 1.0
    return lowest - min(1.0, distance / 2)
