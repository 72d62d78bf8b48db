"""From a camera's frame to a network's input, as the bundle states it.

numpy and OpenCV only: training, export, calibration and the line all call these two functions, so
that what a network decides on the line is what it decided in the workshop.
"""

from __future__ import annotations

from typing import Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.frame import Image


class InputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a stage wants its input: resized to height x width (px), then scaled.

    `unit` divides by 255. `standardise` subtracts the image's own mean and divides by its own
    standard deviation (at least one grey level, so that a flat image stays finite).
    """

    height: int
    width: int
    channels: Literal[1, 3]
    scaling: Literal["unit", "standardise"]
    interpolation: Literal["area", "linear"] = "area"


GATE_INPUT = InputSpec(height=256, width=256, channels=3, scaling="unit")
"""The seed's gate: 256x256 RGB / 255."""
SEGMENTER_INPUT = InputSpec(height=256, width=256, channels=1, scaling="standardise")
"""The seed's segmenter: 256x256 grey, standardised per image."""

_INTERPOLATION = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}


def resize(image: Image, spec: InputSpec) -> Image:
    """Colour and size as `spec` wants them: uint8 (height, width, channels).

    `image` is uint8 (lines, pixels) or RGB (lines, pixels, 3). Grey from RGB by ITU-R BT.601.
    Resizing comes before the grey image is repeated: three equal channels cost one.
    """
    if image.ndim == 3 and spec.channels == 1:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if image.shape[:2] != (spec.height, spec.width):
        image = np.asarray(
            cv2.resize(
                image, (spec.width, spec.height), interpolation=_INTERPOLATION[spec.interpolation]
            ),
            dtype=np.uint8,
        )
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], spec.channels, axis=2)
    return image


def scale(resized: Image, spec: InputSpec) -> NDArray[np.float32]:
    """`resize`'s output as a batch of one: float32 (1, height, width, channels)."""
    x = resized[None].astype(np.float32)
    if spec.scaling == "unit":
        x *= np.float32(1 / 255)
    else:
        x -= x.mean()
        x /= max(float(x.std()), 1.0)
    return x


def prepare(image: Image, spec: InputSpec) -> NDArray[np.float32]:
    """A frame's image as the network's input: float32 (1, height, width, channels)."""
    return scale(resize(image, spec), spec)
