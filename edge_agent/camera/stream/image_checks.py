"""Whether an image can be of a strip at all: not frozen, not black, not white.

A sensor has noise, so that two images are never the same to the last bit, not even of a strip that
stands still. Such an image would pass as defect-free steel, so it is no evidence of any.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_agent.frame import GapReason, Image

BLACK_LEVEL = 4
"""Grey levels at or below are black."""
WHITE_LEVEL = 254
_SHARE = 0.99
"""Of the pixels; the rest are hot or dead ones, or a reflection."""
_MIN_BYTES = 256
"""An image smaller than this may repeat by chance."""


class ImageChecks:
    def __init__(self) -> None:
        self._before: Image | None = None

    def forget(self) -> None:
        """What comes next is not compared with what was."""
        self._before = None

    def fault(self, image: Image) -> tuple[GapReason, str] | None:
        """Why it cannot be inspected, and in one line what was seen."""
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
