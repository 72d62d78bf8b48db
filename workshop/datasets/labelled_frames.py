"""Labelled frames on disk: images/, labels.csv and, optionally, masks/."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from workshop.errors import WorkshopError


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """Row of labels.csv: `class_id` 0 is defect-free; `defect_px` is None if it is not given."""

    image: Path
    class_id: int
    defect_px: int | None


def read(folder: Path) -> tuple[LabelledFrame, ...]:
    """Read labels.csv (file, class_id, optional defect_pixels); raise WorkshopError if unusable."""
    table = folder / "labels.csv"
    frames = []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                frames.append(_frame(folder, row, f"{table}: line {number}"))
    except OSError as error:
        raise WorkshopError(
            f"--data: {table}: {error.strerror}; a folder with images/ and labels.csv is needed"
        ) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise WorkshopError(f"{table}: not a CSV file: {error}") from None
    if not frames:
        raise WorkshopError(f"{table}: no rows; label some frames")
    return tuple(frames)


def _frame(folder: Path, row: dict[str, str | None], where: str) -> LabelledFrame:
    name, class_id, pixels = (row.get(k) for k in ("file", "class_id", "defect_pixels"))
    if not name or not class_id or not class_id.isdecimal():
        raise WorkshopError(f"{where}: file and class_id (0 for defect-free) are needed")
    if pixels and not pixels.isdecimal():
        raise WorkshopError(f"{where}: defect_pixels: {pixels!r} is not a whole number")
    image = folder / "images" / name
    if not image.is_file():
        raise WorkshopError(f"{where}: {image}: no such file")
    return LabelledFrame(image, int(class_id), int(pixels) if pixels else None)
