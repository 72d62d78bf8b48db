"""Choice of the data set class by the layout of a folder."""

from __future__ import annotations

from pathlib import Path

from workshop.datasets import masks, severstal
from workshop.datasets.base import DataSet
from workshop.errors import WorkshopError


def open_dataset(
    path: Path, class_names: tuple[str, ...] | None = None, *, strict: bool = True
) -> DataSet:
    """Open the data set in a folder by its layout; raise WorkshopError if it is unusable.

    Args:
        path: The folder.
        class_names: Names from a trained model's card or the configuration; a class beyond them, or
            another name for one, is an error. None takes the names from the data.
        strict: False opens data with broken masks, for tools that search for them.
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
