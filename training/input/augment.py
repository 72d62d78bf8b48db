"""Augmentation of an image and its coverage, as pure functions of a random generator.

Coverage is uint8 (h, w, classes): the share of each pixel that a class covers, 255 for all of it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.frame import Image
from training.config import Augment

Cover = NDArray[np.uint8]


def augment(
    image: Image, cover: Cover, how: Augment, rng: np.random.Generator
) -> tuple[Image, Cover]:
    """Augment an image and its coverage.

    Args:
        image: uint8 (h, w, channels), at network size.
        cover: uint8 (h, w, classes).
        how: The augmentations to apply.
        rng: Source of all random values.

    Returns:
        The new image and the new coverage, with the same shapes.
    """
    # One fixed order of random values: disabling one augmentation does not change the others.
    draw = rng.uniform(-1, 1, 8)
    image, cover = _flipped(image, cover, how, draw)
    if how.shift or how.zoom:
        image, cover = _moved(image, cover, how, draw[2:6])
    if how.brightness or how.contrast:
        image = _grey_levels_changed(image, how, draw[6:8])
    return image, cover


def _flipped(
    image: Image, cover: Cover, how: Augment, draw: NDArray[np.float64]
) -> tuple[Image, Cover]:
    if how.flip_along and draw[0] > 0:
        image, cover = image[::-1], cover[::-1]
    if how.flip_across and draw[1] > 0:
        image, cover = image[:, ::-1], cover[:, ::-1]
    return image, cover


def _moved(
    image: Image, cover: Cover, how: Augment, draw: NDArray[np.float64]
) -> tuple[Image, Cover]:
    """Shift, and zoom about the centre; mirror the image at its edges."""
    lines, pixels = image.shape[:2]
    zoom = (1 + how.zoom) ** draw[:2]
    move = how.shift * draw[2:4] * (pixels, lines) + (1 - zoom) * (pixels / 2, lines / 2)
    matrix = np.array([[zoom[0], 0, move[0]], [0, zoom[1], move[1]]])

    def warp(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(
            cv2.warpAffine(
                np.ascontiguousarray(plane),
                matrix,
                (pixels, lines),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT_101,
            ),
            np.uint8,
        )

    # One plane at a time, because OpenCV accepts four channels at most.
    planes = [
        warp(cover[:, :, k]) if cover[:, :, k].any() else cover[:, :, k]
        for k in range(cover.shape[2])
    ]
    return warp(image).reshape(image.shape), np.stack(planes, 2) if planes else cover


def _grey_levels_changed(image: Image, how: Augment, draw: NDArray[np.float64]) -> Image:
    """Change the contrast about the mean of the image, then multiply by the brightness."""
    mean = float(image.mean())
    contrast, brightness = (1 + how.contrast) ** draw[0], (1 + how.brightness) ** draw[1]
    grey = np.arange(256, dtype=np.float64)
    table = np.clip(((grey - mean) * contrast + mean) * brightness + 0.5, 0, 255)
    return np.asarray(table.astype(np.uint8)[image])


def pasted(
    image: Image, cover: Cover, donor: Image, donor_cover: Cover, rng: np.random.Generator
) -> tuple[Image, Cover]:
    """Paste the defects of the donor onto `image`, flipped at random, with soft edges.

    Their position stays, because edge defects occur at edges. The grey levels of the donor are
    first scaled to the mean and the standard deviation of the image.

    Args:
        image: uint8 (h, w, channels).
        cover: Coverage of `image`, uint8 (h, w, classes).
        donor: Image with the defects, of the same shape.
        donor_cover: Coverage of `donor`.
        rng: Source of the random flips.

    Returns:
        The new image and its coverage; the inputs if the donor has no defect.
    """
    draw = rng.uniform(-1, 1, 2)
    flips = Augment(flip_along=True, flip_across=True)
    donor, donor_cover = _flipped(donor, donor_cover, flips, draw)
    strongest = donor_cover.max(axis=2)
    if not strongest.any():
        return image, cover
    spread = max(float(image.std()), 1.0) / max(float(donor.std()), 1.0)
    matched = (donor.astype(np.float32) - donor.mean()) * spread + image.mean()
    grown = cv2.dilate(np.ascontiguousarray(strongest), np.ones((5, 5), np.uint8))
    soft = cv2.GaussianBlur(grown, (5, 5), 0)[:, :, None].astype(np.float32) / 255
    mixed = matched * soft + image * (1 - soft)
    hidden = np.where(strongest[:, :, None] > 127, 0, cover)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8), np.maximum(hidden, donor_cover)
