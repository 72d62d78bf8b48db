"""Which layout is this?"""

from __future__ import annotations

from pathlib import Path

from workshop.datasets import masks, severstal
from workshop.datasets.base import DataSet
from workshop.errors import WorkshopError


def open_dataset(
    path: Path, class_names: tuple[str, ...] | None = None, *, strict: bool = True
) -> DataSet:
    """The data set in a folder, by its layout. Raises WorkshopError.

    `class_names` (of a trained model's card, or configured) holds: a class beyond it, or another
    name for one, is an error. Without it the names come from the data. `strict` False opens data
    in which single masks are broken, for those who look for such.
    """
    if masks.fits(path):
        return masks.MaskDataSet(path, class_names, strict=strict)
    if severstal.fits(path):
        return severstal.SeverstalDataSet(path, class_names)
    if not path.is_dir():
        raise WorkshopError(f"{path}: no such folder; give the folder of a data set")
    raise WorkshopError(
        f"{path}: no data set; looked for images/ with masks/ or labels.csv, and for "
        "train_images/ with train.csv"
    )
