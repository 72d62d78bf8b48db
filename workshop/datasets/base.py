"""What training, evaluation and inspection need of a set of labelled images."""

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
    """What is known of an image before it is read.

    `class_ids` are the defect classes on it, ascending, from 1, by its label and its mask together.
    A defective image may have none: somebody saw the defect, and nobody named or drew it.
    """

    name: str
    defective: bool
    class_ids: tuple[int, ...]
    drawn: bool = True


class DataSet(Protocol):
    """Labelled images, read one at a time. Reading raises WorkshopError that names the image."""

    name: str
    class_names: tuple[str, ...]
    """Of the defect classes, 1 first."""
    samples: tuple[Sample, ...]
    """In a fixed order; names are unique."""

    def image(self, index: int) -> Image:
        """uint8 (lines, pixels) or RGB (lines, pixels, 3)."""
        ...

    def planes(self, index: int) -> Planes:
        """The defects drawn on the image, in the image's own size."""
        ...

    def digest(self, index: int) -> str:
        """The first 16 hexadecimal digits of the sha256 of what makes up the image."""
        ...
