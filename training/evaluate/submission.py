"""Predictions as the Severstal competition takes them: ImageId_ClassId, EncodedPixels.

One row for each image and class, "name.jpg_3"; the run lengths are empty where nothing was found.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from edge_agent import files
from edge_agent.inspection import rle
from workshop.datasets import Planes
from workshop.datasets.files import check_name, class_id_of, read_table
from workshop.errors import WorkshopError

COLUMNS = ("ImageId_ClassId", "EncodedPixels")


def write(path: Path, predictions: Iterable[tuple[str, Planes]]) -> int:
    """Write predictions as they come, bool (lines, pixels, classes) each; give the rows written.

    Raises WorkshopError where the file cannot be written or a name is there twice; what was at
    `path` then stays as it was.
    """
    rows, seen = 0, set()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            files.replacing(path) as new,
            new.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for name, planes in predictions:
                if check_name(name, str(path)) in seen:
                    raise WorkshopError(f"{path}: {name} is there twice; predict each image once")
                seen.add(name)
                for class_id in range(1, planes.shape[2] + 1):
                    table.writerow((f"{name}_{class_id}", rle.encode(planes[:, :, class_id - 1])))
                    rows += 1
    except OSError as error:
        raise WorkshopError(f"{path}: {error.strerror}; give a file to write") from None
    return rows


def read(path: Path) -> dict[str, dict[int, str]]:
    """Run lengths by image and class, "" where nothing was found. Raises WorkshopError.

    What a text says is seen when it is decoded (`edge_agent.inspection.rle.decode`).
    """
    found: dict[str, dict[int, str]] = {}
    for where, (both, text) in read_table(path, COLUMNS):
        name, _, number = both.rpartition("_")
        class_id = class_id_of(number, where)
        of_image = found.setdefault(check_name(name, where), {})
        if class_id == 0 or class_id in of_image:
            raise WorkshopError(
                f"{where}: {both}: classes count from 1, and each has one row an image"
            )
        of_image[class_id] = text
    return found
