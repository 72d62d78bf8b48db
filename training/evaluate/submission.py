"""Predictions in the format of the Severstal competition: ImageId_ClassId, EncodedPixels.

There is one row for each image and class ("name.jpg_3"); run lengths without a defect are empty.
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
    """Write predictions to `path`, one at a time, and replace the file at the end.

    Args:
        path: The CSV file. It stays unchanged after an error.
        predictions: Name and masks of each image, bool (lines, pixels, classes).

    Returns:
        The number of rows.

    Raises:
        WorkshopError: The file cannot be written, or a name is invalid or occurs twice.
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
                    raise WorkshopError(f"{path}: {name} occurs twice; predict each image once")
                seen.add(name)
                for class_id in range(1, planes.shape[2] + 1):
                    table.writerow((f"{name}_{class_id}", rle.encode(planes[:, :, class_id - 1])))
                    rows += 1
    except OSError as error:
        raise WorkshopError(f"{path}: {error.strerror}; give a writable file") from None
    return rows


def read(path: Path) -> dict[str, dict[int, str]]:
    """Read run lengths by image and class, "" without a defect; raise WorkshopError if invalid.

    The run lengths are not decoded here; `edge_agent.inspection.rle.decode` checks them.
    """
    found: dict[str, dict[int, str]] = {}
    for where, (both, text) in read_table(path, COLUMNS):
        name, _, number = both.rpartition("_")
        class_id = class_id_of(number, where)
        of_image = found.setdefault(check_name(name, where), {})
        if class_id == 0 or class_id in of_image:
            raise WorkshopError(
                f"{where}: {both}: class 0 or a second row; use classes from 1, one row each"
            )
        of_image[class_id] = text
    return found
