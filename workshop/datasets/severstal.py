"""Layout of the Severstal steel competition: `train_images/` and run lengths in `train.csv`.

Columns: ImageId, ClassId, EncodedPixels, or ImageId_ClassId ("name.jpg_3"), EncodedPixels (older);
an empty field: nothing of that class. Optional: `defect_and_no_defect.csv` (ImageId, label).
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from edge_agent.inspection import rle
from workshop.datasets.base import Planes, Sample
from workshop.datasets.files import (
    ImageFiles,
    check_class_names,
    check_name,
    class_id_of,
    list_images,
    outside,
    read_table,
)
from workshop.errors import WorkshopError

CLASS_NAMES = ("class_1", "class_2", "class_3", "class_4")

_Runs = dict[str, dict[int, str]]
"""Run lengths by image and class; an image may be listed without any."""

_log = logging.getLogger(__name__)


def fits(folder: Path) -> bool:
    """Return True if this folder has the layout."""
    return (folder / "train_images").is_dir() and (folder / "train.csv").is_file()


class SeverstalDataSet(ImageFiles):
    """Data set in the layout of the Severstal competition.

    `defect_and_no_defect.csv`, if present, names the labelled images: 0 defect-free, 1 defective,
    even with nothing drawn. Images in neither table are left out, and a line in the log counts
    them. Without it every image on which `train.csv` draws nothing is defect-free.
    """

    def __init__(self, folder: Path, class_names: tuple[str, ...] | None = None) -> None:
        check_class_names(class_names)
        names = CLASS_NAMES if class_names is None else class_names
        images = list_images(folder / "train_images")
        self._table = folder / "train.csv"
        self._runs = _runs(self._table, names)
        _check_images(self._table, self._runs, set(images))
        defective = {name: bool(runs) for name, runs in self._runs.items()}
        labels = folder / "defect_and_no_defect.csv"
        if labels.is_file():
            defective.update(_labels(labels, self._runs, set(images)))
        else:
            defective = {name: defective.get(name, False) for name in images}
        if len(defective) < len(images):
            _log.warning(
                "%s: %d images without a label are left out", folder, len(images) - len(defective)
            )
        samples = [
            Sample(name, defective[name], ids, not defective[name] or bool(ids))
            for name in sorted(defective)
            for ids in [tuple(sorted(self._runs.get(name, {})))]
        ]
        if not samples:
            raise WorkshopError(f"{folder}: none of the images has a label; see {labels.name}")
        super().__init__(folder.resolve().name, folder / "train_images", samples, names)

    def planes(self, index: int) -> Planes:
        """Return bool (lines, pixels, classes), decoded from the run lengths."""
        size, sample = self.size(index), self.samples[index]
        planes = np.zeros((*size, len(self.class_names)), np.bool_)
        for class_id in sample.class_ids:
            try:
                planes[:, :, class_id - 1] = rle.decode(self._runs[sample.name][class_id], size)
            except ValueError as error:
                raise WorkshopError(
                    f"{self._table}: {sample.name} class {class_id}: {error}; the image is "
                    f"{size[1]}x{size[0]} px"
                ) from None
        return planes


def _runs(path: Path, class_names: tuple[str, ...]) -> _Runs:
    runs: _Runs = {}
    for where, (name, class_text, text) in _rows(path):
        class_id = class_id_of(class_text, where)
        if not 1 <= class_id <= len(class_names):
            raise outside(class_id, class_names, where)
        of_image = runs.setdefault(check_name(name, where), {})
        if class_id in of_image:
            raise WorkshopError(
                f"{where}: {name} has class {class_id} twice; put both into one row"
            )
        if text:
            of_image[class_id] = text
    return runs


def _rows(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Return the rows of either form: image, (class, run lengths)."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            older = "imageid_classid" in file.readline().lower()
    except (OSError, UnicodeDecodeError):
        older = False  # read_table reports the error
    if not older:
        return list(read_table(path, ("ImageId", "ClassId", "EncodedPixels")))
    rows: list[tuple[str, tuple[str, ...]]] = []
    for where, (both, text) in read_table(path, ("ImageId_ClassId", "EncodedPixels")):
        name, _, class_text = both.rpartition("_")
        rows.append((where, (name, class_text, text)))
    return rows


def _labels(path: Path, runs: _Runs, images: set[str]) -> dict[str, bool]:
    labels: dict[str, bool] = {}
    for where, (name, label) in read_table(path, ("ImageId", "label")):
        if check_name(name, where) in labels:
            raise WorkshopError(f"{where}: {name} is there twice; give each image one row")
        if label not in ("0", "1"):
            raise WorkshopError(
                f"{where}: label {label!r}; write 0 for defect-free, 1 for defective"
            )
        if label == "0" and runs.get(name):
            raise WorkshopError(
                f"{where}: {name} is defect-free here, "
                f"but train.csv draws class {min(runs[name])} on it"
            )
        labels[name] = label == "1"
    _check_images(path, labels, images)
    return labels


def _check_images(path: Path, named: _Runs | dict[str, bool], images: set[str]) -> None:
    missing = sorted(named.keys() - images)
    if missing:
        raise WorkshopError(
            f"{path}: no image train_images/{missing[0]} ({len(missing)} such); "
            "add it or take its rows out"
        )
