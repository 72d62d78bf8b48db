"""Plausibility checks of images: not frozen, not black, not white.

An image that fails them would pass as defect-free steel, so its lines become a gap.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_agent.frame import GapReason, Image

BLACK_LEVEL = 4
"""Grey levels up to this one count as black."""
WHITE_LEVEL = 254
_SHARE = 0.99
"""Share of the pixels; the rest are hot or dead pixels, or a reflection."""
_MIN_BYTES = 256
"""Smaller images can repeat by chance, so they are not checked for freezing."""


class ImageChecks:
    """Checker of consecutive images of one stream.

    Sensor noise makes two images differ even when the strip is at standstill; identical images
    therefore mean a frozen stream.
    """

    def __init__(self) -> None:
        self._before: Image | None = None

    def forget(self) -> None:
        """Do not compare the next image with the previous one."""
        self._before = None

    def fault(self, image: Image) -> tuple[GapReason, str] | None:
        """Return the gap reason and a one-line detail if the image is implausible, else None."""
        before, self._before = self._before, image
        counts = cv2.calcHist([image], [0], None, [256], [0, 256])[:, 0]
        if image.ndim == 3:
            for channel in (1, 2):
                counts = counts + cv2.calcHist([image], [channel], None, [256], [0, 256])[:, 0]
        total = float(image.size)
        dark = float(counts[: BLACK_LEVEL + 1].sum()) / total
        if dark >= _SHARE:
            level = f"grey level {BLACK_LEVEL} or below"
            return GapReason.BLACK, f"{dark:.1%} of the image at {level}: lamp, lens cap or cable"
        white = float(counts[WHITE_LEVEL:].sum()) / total
        if white >= _SHARE:
            level = f"grey level {WHITE_LEVEL} or above"
            return GapReason.SATURATED, f"{white:.1%} of the image at {level}: exposure or gain"
        if before is not None and image.size >= _MIN_BYTES and np.array_equal(before, image):
            return GapReason.FROZEN, "the same bytes as the block before"
        return None
