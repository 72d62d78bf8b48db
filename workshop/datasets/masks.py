"""Images with index masks: `images/`, optional `masks/`, optional `labels.csv`.

A mask is a grey PNG of the image's stem and size: 0 defect-free, k the k-th class. `labels.csv`
(file, class_name, class_id; 0: defect-free) overrides masks and may label images without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.image_files import read_image
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
from workshop.progress import each

COLUMNS = ("file", "class_name", "class_id")
_MAX_UNNAMED = 64
"""Limit of unnamed classes: more of them are probably grey levels taken for class numbers."""
_SILENT = 200


def fits(folder: Path) -> bool:
    """Return True if this folder has the layout."""
    parts = ((folder / "masks").is_dir(), (folder / "labels.csv").is_file())
    return (folder / "images").is_dir() and any(parts)


class MaskDataSet(ImageFiles):
    """Data set of images with index masks.

    With `strict` an unusable mask raises WorkshopError on opening. Otherwise the image counts as
    defective, without a class, and its planes raise the error. `labels.csv`, if present, names
    every image; without it, an image without a mask has nothing drawn on it and is defect-free.
    """

    def __init__(
        self, folder: Path, class_names: tuple[str, ...] | None = None, *, strict: bool = True
    ) -> None:
        check_class_names(class_names)
        names = list_images(folder / "images")
        labels = _labels(folder, set(names))
        self._masks = _mask_files(folder / "masks", names)
        # Masks of images labelled defect-free need not be read.
        look = [n for n in names if n in self._masks and (labels is None or labels.ids[n])]
        limit = len(class_names) if class_names is not None else _MAX_UNNAMED
        drawn: dict[str, tuple[int, ...]] = {}
        broken = set()
        shown = len(look) > _SILENT
        for name in each(look, "reading masks", "mask", total=len(look), shown=shown):
            try:
                drawn[name] = _drawn(self._masks[name], limit, class_names)
            except WorkshopError:
                if strict:
                    raise
                broken.add(name)
        samples = []
        for name in names:
            label = labels.ids[name] if labels is not None else 0
            ids = tuple(sorted({*drawn.get(name, ()), *((label,) if label else ())}))
            defective = bool(ids) or name in broken
            samples.append(Sample(name, defective, ids, not defective or bool(drawn.get(name))))
        listed = labels.names if labels is not None else {}
        highest = max((i for sample in samples for i in sample.class_ids), default=0)
        super().__init__(
            folder.resolve().name,
            folder / "images",
            samples,
            _names(folder / "labels.csv", listed, class_names, highest),
        )

    def planes(self, index: int) -> Planes:
        """Return bool (lines, pixels, classes); all False if the image has no mask."""
        size, name = self.size(index), self.samples[index].name
        if name not in self._masks:
            return np.zeros((*size, len(self.class_names)), np.bool_)
        path = self._masks[name]
        mask = _read(path)
        if mask.shape != size:
            raise WorkshopError(
                f"{path}: {mask.shape[1]}x{mask.shape[0]} px, but the image {name} is "
                f"{size[1]}x{size[0]}; draw it in the image's size"
            )
        if mask.max(initial=0) > len(self.class_names):
            raise outside(int(mask.max()), self.class_names, str(path))
        ids = np.arange(1, len(self.class_names) + 1, dtype=np.uint8)
        return np.asarray(mask[:, :, None] == ids, np.bool_)


@dataclass(frozen=True, slots=True)
class _Labels:
    ids: dict[str, int]
    names: dict[int, str]


def _labels(folder: Path, images: set[str]) -> _Labels | None:
    path = folder / "labels.csv"
    if not path.is_file():
        return None
    ids: dict[str, int] = {}
    names: dict[int, str] = {}
    for where, (name, class_name, class_id) in read_table(path, COLUMNS):
        if check_name(name, where) in ids:
            raise WorkshopError(f"{where}: {name} is there twice; give each image one row")
        if name not in images:
            raise WorkshopError(f"{where}: no image images/{name}; add it or take the row out")
        number = class_id_of(class_id, where)
        if number and names.setdefault(number, class_name) != class_name:
            raise WorkshopError(
                f"{where}: class id {number} is {class_name!r} here and {names[number]!r} above"
            )
        ids[name] = number
    unlisted = sorted(images - ids.keys())
    if unlisted:
        raise WorkshopError(
            f"{path}: no row for images/{unlisted[0]} ({len(unlisted)} such); label or remove it"
        )
    return _Labels(ids, names)


def _mask_files(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """Return the mask of each image that has one."""
    if not folder.is_dir():
        return {}
    files = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".png"}
    of: dict[str, str] = {}
    for name in names:
        stem = Path(name).stem
        if stem in files and stem in of:
            raise WorkshopError(
                f"{files[stem]}: is it the mask of {of[stem]} or of {name}? rename one"
            )
        of[stem] = name
    alone = sorted(files.keys() - of.keys())
    if alone:
        raise WorkshopError(
            f"{files[alone[0]]}: no image of this name in images/ ({len(alone)} such); "
            "add it or take the mask out"
        )
    return {of[stem]: path for stem, path in files.items()}


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        mask = read_image(path)
    except ValueError as error:
        raise WorkshopError(f"{path}: {error}; draw it anew or take it out") from None
    if mask.ndim != 2:
        raise WorkshopError(f"{path}: in colour; save the class numbers as a grey PNG")
    return mask


def _drawn(path: Path, limit: int, class_names: tuple[str, ...] | None) -> tuple[int, ...]:
    """Return the classes on a mask; raise WorkshopError if it is unusable."""
    ids = np.flatnonzero(np.bincount(_read(path).ravel(), minlength=1)[1:]) + 1
    if ids.size and ids[-1] > limit:
        if class_names is not None:
            raise outside(int(ids[-1]), class_names, str(path))
        raise WorkshopError(
            f"{path}: class id {ids[-1]}; a mask holds class numbers (0 defect-free, 1, 2, …), "
            "not grey levels"
        )
    return tuple(int(i) for i in ids)


def _names(
    path: Path, listed: dict[int, str], given: tuple[str, ...] | None, highest: int
) -> tuple[str, ...]:
    if given is None:
        names = tuple(listed.get(k, f"class_{k}") for k in range(1, highest + 1))
        if len(set(names)) < len(names):
            raise WorkshopError(f"{path}: two class ids have one name; name each class once")
        return names
    for number, name in sorted(listed.items()):
        if number > len(given):
            raise outside(number, given, str(path))
        if given[number - 1] != name:
            raise WorkshopError(
                f"{path}: class id {number} is {name!r} there and {given[number - 1]!r} in the list"
                f" ({', '.join(given)})"
            )
    return given
