"""Frames as JPEG pictures for people, limited in bytes and in number per minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from edge_agent.config.config import EvidenceConfig
from edge_agent.frame import Image


class RateLimit:
    """Token bucket of size `per_minute`, refilled at `per_minute`."""

    def __init__(self, per_minute: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock_s = float(per_minute), clock_s
        self._left, self._counted_at_s = self._most, clock_s()

    def take(self) -> bool:
        """Take one token; return False if none is left."""
        now_s = self._clock_s()
        gained = (now_s - self._counted_at_s) * self._most / 60
        self._left, self._counted_at_s = min(self._most, self._left + gained), now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


_JPEG_MAX_PX = 65_500
"""Largest side of a JPEG in px; the encoder raises an error above it."""


def jpeg(image: Image, rules: EvidenceConfig) -> tuple[bytes, tuple[int, int]]:
    """Encode an image as JPEG, halving its size until it fits in `max_bytes`.

    Args:
        image: uint8, grey (lines, pixels) or RGB (lines, pixels, 3).
        rules: JPEG quality and `max_bytes`.

    Returns:
        The JPEG data and its (lines, pixels).
    """
    shown: Any = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    while True:
        lines, pixels = shown.shape[:2]
        if max(lines, pixels) <= _JPEG_MAX_PX:
            _, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, rules.jpeg_quality])
            if data.nbytes <= rules.max_bytes or lines * pixels == 1:
                return np.asarray(data).tobytes(), (int(lines), int(pixels))
        size = (max(1, pixels // 2), max(1, lines // 2))
        shown = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
