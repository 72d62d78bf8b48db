"""Sample frames for int8 ranges, comparison and golden outputs."""

from __future__ import annotations

import csv
from pathlib import Path

from edge_agent.frame import Image
from edge_agent.image_files import SUFFIXES, read_image
from workshop.errors import WorkshopError


def read(folder: Path, limit: int) -> list[Image]:
    """Read up to `limit` images, evenly spread over the names of `folder` or its images/."""
    inside = folder / "images" if (folder / "images").is_dir() else folder
    try:
        paths = sorted(p for p in inside.iterdir() if p.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise WorkshopError(f"--samples: {folder}: {error.strerror}; give a folder") from None
    if len(paths) < 4:
        raise WorkshopError(
            f"--samples: {folder}: {len(paths)} images; at least 4 are needed, 100 are better, "
            "with defects of every class"
        )
    step = max(1, len(paths) / limit)
    chosen = [paths[int(i * step)] for i in range(min(limit, len(paths)))]
    try:
        return [read_image(path) for path in chosen]
    except ValueError as error:
        raise WorkshopError(f"--samples: {folder}: {error}; remove the file") from None


def class_names(folder: Path, count: int) -> tuple[str, ...]:
    """Return the names 1 to `count` in labels.csv (class_id, class_name) or class_k."""
    names: dict[int, str] = {}
    if (folder / "labels.csv").is_file():
        with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                number = line.get("class_id") or ""
                if number.isdecimal():
                    names[int(number)] = line.get("class_name") or ""
    return tuple(names.get(k) or f"class_{k}" for k in range(1, count + 1))
