"""The part of cv2.VideoCapture that the OpenCV backend uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import cv2


class Capture(Protocol):
    """Subset of cv2.VideoCapture that the backend uses."""

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """Return True if the source is open."""
        ...

    def read(self) -> tuple[bool, Any]:
        """Return True and the next image, or False and None."""
        ...

    def get(self, prop: int, /) -> float:
        """Return the value of a property."""
        ...

    def set(self, prop: int, value: float, /) -> bool:
        """Set a property; return False if it is not supported."""
        ...

    def release(self) -> None:
        """Close the source."""
        ...


def open_capture(name: str, api: int, parameters: Sequence[int]) -> Capture:
    """Open a cv2.VideoCapture with OpenCV's own log switched off."""
    # At the top level until OpenCV 4.12, in cv2.utils.logging since.
    silence = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    silence(0)
    return cv2.VideoCapture(name, api, parameters)
