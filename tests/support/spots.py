"""Labelled images for the level models: grey noise, every other one with a dark or bright spot."""

from pathlib import Path

import cv2
import numpy as np


def write(folder: Path, count: int) -> Path:
    """images/ and masks/: 1 is dark, 2 is bright; no two images are alike."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(5)
    for index in range(count):
        noise = cv2.GaussianBlur(rng.normal(0, 1, (256, 256)), (0, 0), 1.5)
        grey = 105 + 8 * noise / noise.std()
        if index % 2:
            kind = 1 + index % 4 // 2
            line, pixel = (int(i) for i in rng.integers(16, 200, 2))
            spot = np.s_[line : line + 24, pixel : pixel + 24]
            grey[spot] += {1: -85, 2: 100}[kind]
            mask = np.zeros((256, 256), np.uint8)
            mask[spot] = kind
            cv2.imwrite(str(folder / "masks" / f"{index:03d}.png"), mask)
        image = np.clip(grey, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index:03d}.png"), image)
    return folder
