"""Pictures of a report's page: small, with tinted defects, embedded in the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.frame import Image

# Okabe and Ito's colours, which the colour-blind can distinguish. RGB.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0))
_LONGEST_PX = 800
_TINT = 0.45


@dataclass(frozen=True, slots=True)
class Panel:
    """Picture with its title; `url` is a data URL."""

    title: str
    url: str


def small(image: Image) -> Image:
    """Return the image as RGB, the longer side at most 800 px."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    factor = _LONGEST_PX / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def tinted(picture: Image, masks: Sequence[NDArray[np.bool_]]) -> Image:
    """Tint the classes and outline them, so that a class of a single pixel stays visible."""
    out = picture.copy()
    for k, mask in enumerate(masks, 1):
        if not mask.any():
            continue
        cover = cv2.resize(
            np.ascontiguousarray(mask).view(np.uint8) * 255,
            picture.shape[1::-1],
            interpolation=cv2.INTER_AREA,
        )
        inside = cover > 0
        tint = _TINT * np.array(colour(k))
        out[inside] = ((1 - _TINT) * out[inside] + tint).astype(np.uint8)
        edges, _ = cv2.findContours(inside.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, edges, -1, colour(k), 1)
    return out


def colour(class_id: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class, from 1; colours repeat."""
    return _COLOURS[(class_id - 1) % len(_COLOURS)]


def jpeg_url(picture: Image) -> str:
    """Return an RGB picture as a JPEG data URL."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    # Full colour resolution: outlines are one pixel wide.
    how = [
        cv2.IMWRITE_JPEG_QUALITY,
        85,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, data = cv2.imencode(".jpg", bgr, how)
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
