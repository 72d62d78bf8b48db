"""Drawing of single marks on steel: defects with their masks, harmless marks without."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: tuple[int, int]) -> Field:
    """Return value noise of unit variance: random knots `cell` (lines, pixels) apart, cubic."""
    knots = rng.standard_normal(
        (shape[0] // cell[0] + 2, shape[1] // cell[1] + 2), dtype=np.float32
    )
    noise = cv2.resize(knots, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise / (noise.std() + 1e-6), dtype=np.float32)


def _ellipse(height: int, width: int) -> Field:
    """Return the distance from the centre in half axes: 0 at the centre, 1 on the rim."""
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    return np.hypot(y[:, None], x[None, :])


def _pits(rng: np.random.Generator, contrast: float) -> tuple[Field, NDArray[np.bool_]]:
    """Draw a cluster of small dark hollows, each with a lit edge on the side away from the lamp."""
    height, width = int(rng.integers(60, 200)), int(rng.integers(80, 260))
    gain = np.zeros((height, width), np.float32)
    mask = np.zeros((height, width), np.bool_)
    for _ in range(int(rng.integers(3, 12))):
        h, w = int(rng.integers(12, 26)), int(rng.integers(12, 30))
        y, x = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        r = _ellipse(h, w)
        lit = np.linspace(-0.6, 1.0, h, dtype=np.float32)[:, None]
        hollow = -np.clip(1.4 - r, 0, 1) + 0.7 * lit * np.exp(-(((r - 0.85) / 0.2) ** 2))
        inside = r < 1
        np.copyto(gain[y : y + h, x : x + w], hollow, where=inside)
        mask[y : y + h, x : x + w] |= inside
    return contrast * 1.3 * gain, mask


def _scratch(rng: np.random.Generator, contrast: float) -> tuple[Field, NDArray[np.bool_]]:
    """Draw a thin bright groove along the strip, slightly wavy, that fades at both ends."""
    height, thick = int(rng.integers(140, 700)), float(rng.uniform(7, 16))
    drift = rng.uniform(-0.12, 0.12) * height
    wander = smooth_noise(rng, (height, 1), (120, 1))[:, 0] * 6
    centre = np.linspace(0, drift, height, dtype=np.float32) + wander
    centre += 24 - centre.min()
    x = np.arange(int(centre.max()) + 24, dtype=np.float32)
    away = np.abs(x[None, :] - centre[:, None]) / (thick / 2)
    ends = np.minimum(1, np.minimum(np.arange(height) + 1, height - np.arange(height)) / 12)
    uneven = 1 + 0.2 * smooth_noise(rng, (height, 1), (20, 1))
    profile = np.clip(1.5 - away, 0, 1) - 0.35 * np.exp(-(((away - 1.5) / 0.35) ** 2))
    return (contrast * profile * ends[:, None] * uneven).astype(np.float32), away < 1


def _abrasion(rng: np.random.Generator, contrast: float) -> tuple[Field, NDArray[np.bool_]]:
    """Draw a broad scuffed area: fine slanted hatching, brighter than the steel on average."""
    height, width = int(rng.integers(90, 360)), int(rng.integers(160, 560))
    rim = _ellipse(height, width) + 0.12 * smooth_noise(rng, (height, width), (40, 60))
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]
    slant, pitch = rng.uniform(-1.2, 1.2), rng.uniform(16, 30)
    phase = (x + slant * y) / pitch * 2 * np.pi
    hatch = np.sin(phase + 1.5 * smooth_noise(rng, (height, width), (48, 48)))
    inside = np.clip((1 - rim) / 0.12, 0, 1)
    return (contrast * inside * (0.55 + 0.75 * hatch)).astype(np.float32), rim < 0.94


def _scale(rng: np.random.Generator, contrast: float) -> tuple[Field, NDArray[np.bool_]]:
    """Draw a patch of rolled-in scale: dark, mottled, with a ragged sharp edge."""
    height, width = int(rng.integers(60, 260)), int(rng.integers(90, 380))
    ragged = 0.16 * smooth_noise(rng, (height, width), (22, 30))
    rim = _ellipse(height, width) + ragged
    mottle = smooth_noise(rng, (height, width), (9, 14))
    inside = np.clip((0.9 - rim) / 0.05, 0, 1)
    return (contrast * inside * (-0.85 + 0.5 * mottle)).astype(np.float32), rim < 0.875


def _oil(rng: np.random.Generator) -> Field:
    """Draw a smooth dark oil smear along the strip with soft edges."""
    height, width = int(rng.integers(150, 700)), int(rng.integers(60, 300))
    fade = np.clip(1 - _ellipse(height, width), 0, 1)
    return (-rng.uniform(0.1, 0.45) * fade * fade * (3 - 2 * fade)).astype(np.float32)


def _drops(rng: np.random.Generator) -> Field:
    """Draw water drops: a few round, soft, very bright spots that reflect the lamp."""
    height, width = int(rng.integers(40, 160)), int(rng.integers(60, 240))
    gain = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(2, 8))):
        size = int(rng.integers(14, 34))
        y, x = int(rng.integers(0, height - size)), int(rng.integers(0, width - size))
        spot = np.clip(1 - _ellipse(size, size), 0, 1)
        np.maximum(gain[y : y + size, x : x + size], spot, out=gain[y : y + size, x : x + size])
    return gain * np.float32(rng.uniform(0.4, 1.4))


def _dust(rng: np.random.Generator) -> Field:
    """Draw scattered dust specks of one or two pixels, dark or bright."""
    height, width = int(rng.integers(80, 240)), int(rng.integers(200, 700))
    gain = np.zeros((height, width), np.float32)
    count = int(rng.integers(8, 40))
    y, x = rng.integers(1, height, count), rng.integers(1, width, count)
    gain[y, x] = gain[y - 1, x] = gain[y, x - 1] = rng.uniform(-0.6, 0.9, count)
    return gain


DEFECTS: tuple[Callable[[np.random.Generator, float], tuple[Field, NDArray[np.bool_]]], ...]
DEFECTS = (_pits, _scratch, _abrasion, _scale)
HARMLESS_MARKS = (_oil, _drops, _dust)
