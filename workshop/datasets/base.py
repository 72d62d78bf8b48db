"""Sets of labelled images, as training, evaluation and inspection need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.frame import Image

Planes = NDArray[np.bool_]
"""bool (lines, pixels, classes): a pixel may belong to several classes, or to none."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Facts about an image that are known before it is read.

    `class_ids` are its defect classes, ascending, from 1, by its label and its mask together. A
    defective image may have none: its label names no class and its mask is empty or missing.
    """

    name: str
    defective: bool
    class_ids: tuple[int, ...]
    drawn: bool = True


class DataSet(Protocol):
    """Set of labelled images, read one at a time; reading raises WorkshopError naming the image."""

    name: str
    class_names: tuple[str, ...]
    """Names of the defect classes, class 1 first."""
    samples: tuple[Sample, ...]
    """Samples in a fixed order; names are unique."""

    def image(self, index: int) -> Image:
        """Return the image: uint8 (lines, pixels) or RGB (lines, pixels, 3)."""
        ...

    def planes(self, index: int) -> Planes:
        """Return the defects drawn on the image, in the image's own size."""
        ...

    def digest(self, index: int) -> str:
        """Return the first 16 hexadecimal digits of the sha256 of the image's source."""
        ...
