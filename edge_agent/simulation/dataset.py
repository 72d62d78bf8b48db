"""Export of the simulated strip as a data set on disk: images, masks, labels.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np

from edge_agent.config.camera import SimulatedCamera
from edge_agent.errors import ConfigError
from edge_agent.simulation.rolled_steel import CLASS_NAMES, strip_of

_DEFECT_COLUMNS = (
    "file",
    "class_name",
    "class_id",
    "x_px",
    "y_px",
    "width_px",
    "height_px",
    "area_px",
    "contrast",
)


def write(config: SimulatedCamera, strips: int, frames: int, out: Path) -> Iterator[int]:
    """Write `frames` frames of `strips` strips below `out`; yield the number written after each.

    The seeds of the strips count up from `config.seed`. Files:

    - images/NAME.png
    - masks/NAME.png: class index per pixel, 0 defect-free
    - labels.csv: file, class_name and class_id (the class with most pixels), defect_pixels
    - defects.csv: one row per defect per frame with class, box in px, area_px and contrast

    Raises ConfigError if `out` cannot be written to.
    """
    try:
        for folder in ("images", "masks"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        table = (out / "labels.csv").open("w", newline="", encoding="utf-8")
        defect_table = (out / "defects.csv").open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out: {out}: {error.strerror}; give a folder to write to") from None
    with table, defect_table:
        rows, defect_rows = csv.writer(table), csv.writer(defect_table)
        rows.writerow(("file", "class_name", "class_id", "defect_pixels"))
        defect_rows.writerow(_DEFECT_COLUMNS)
        per_strip = -(-frames // strips)
        for number in range(frames):
            index = number % per_strip
            if index == 0:
                seed = config.seed + number // per_strip
                strip = strip_of(msgspec.structs.replace(config, seed=seed))
            first, height = index * config.height_px, config.height_px
            truth = strip.truth(first, height)
            counts = np.bincount(truth.ravel(), minlength=len(CLASS_NAMES) + 1)
            defect_px = int(counts[1:].sum())
            class_id = int(counts[1:].argmax()) + 1 if defect_px else 0
            name = f"seed{seed}-frame{index:06d}.png"
            cv2.imwrite(str(out / "images" / name), strip.render(first, height))
            cv2.imwrite(str(out / "masks" / name), truth)
            rows.writerow(
                (name, CLASS_NAMES[class_id - 1] if class_id else "Free", class_id, defect_px)
            )
            for mark in strip.defects(first, height):
                mask = strip.mask_of(mark, first, height)
                if mask.any():
                    box = cv2.boundingRect(mask.view(np.uint8))
                    name_of = CLASS_NAMES[mark.class_id - 1]
                    contrast = round(mark.contrast, 4)
                    defect_rows.writerow(
                        (name, name_of, mark.class_id, *box, np.count_nonzero(mask), contrast)
                    )
            yield number + 1
