"""A small data set on the disk, drawn by the tests, and what a run of seconds needs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

TINY = """
[input]
height = 128
width = 128
[network]
width = 0.0625
[optimisation]
epochs = 2
batch = 4
"""


@pytest.fixture(scope="session")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 grey images of 96x120, two thirds with a bright spot (class 1) or a dark bar (class 2)."""
    folder = tmp_path_factory.mktemp("drawn")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "class_name", "class_id", "defect_pixels"])
        for index in range(36):
            kind, name = index % 3, f"{index:03d}"
            image = rng.normal(120, 8, (96, 120))
            mask = np.zeros((96, 120), np.uint8)
            y, x = rng.integers(10, 70, 2)
            if kind == 1:
                cv2.circle(mask, (int(x), int(y)), 9, 1, -1)
            elif kind == 2:
                mask[y : y + 6, 10:110] = 2
            image[mask == 1] += 70
            image[mask == 2] -= 70
            cv2.imwrite(str(folder / "images" / f"{name}.png"), np.clip(image, 0, 255))
            cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
            class_name = ("defect_free", "spot", "bar")[kind]
            table.writerow([f"{name}.png", class_name, kind, int((mask > 0).sum())])
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a train.toml: the tiny network, with more lines added to it."""

    def write(more: str = "") -> Path:
        path = tmp_path / "train.toml"
        path.write_text(TINY + more)
        return path

    return write
