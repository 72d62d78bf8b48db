"""Inspection of a data set: contents, invalid files and near-duplicates, in one pass.

Only the size, the defect areas and a fingerprint of 10 kB of each image stay in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data_report.figures import ClassCounts, DataReport, NearPair, Size, Spread
from workshop import near_duplicates
from workshop import splits as split
from workshop.datasets import DataSet, Planes
from workshop.errors import WorkshopError
from workshop.progress import each

_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def inspect(
    dataset: DataSet, splits: split.Split | None = None, *, progress: bool = False
) -> DataReport:
    """Inspect every image of a data set; invalid images and masks are listed in the report.

    Args:
        dataset: The data set.
        splits: Split list to check for groups across its parts, or None.
        progress: Show progress on standard error.

    Returns:
        The report.

    Raises:
        WorkshopError: The split list does not fit the data.
    """
    indices = None if splits is None else split.lay(splits, dataset)
    measured = _measure(dataset, progress)
    pairs = near_duplicates.near_duplicates(measured.prints, progress=progress)
    numbers = near_duplicates.group_numbers(len(dataset.samples), pairs, tuple(measured.digests))
    names = [sample.name for sample in dataset.samples]
    groups = _members(numbers)
    same: dict[str, list[str]] = defaultdict(list)
    for name, digest in zip(names, measured.digests, strict=True):
        if digest is not None:
            same[digest].append(name)
    defective = sum(sample.defective for sample in dataset.samples)
    images: Counter[int] = Counter(
        class_id for sample in dataset.samples for class_id in sample.class_ids
    )
    of_class = [images[k] for k in range(1, len(dataset.class_names) + 1)]
    fewest = min(of_class, default=0)
    return DataReport(
        name=dataset.name,
        images=len(names),
        defect_free=len(names) - defective,
        defective=defective,
        imbalance=max(of_class) / fewest if fewest else None,
        width_px=_spread([width for _, width in measured.sizes]),
        height_px=_spread([height for height, _ in measured.sizes]),
        sizes=tuple(
            Size(width, height, count)
            for (height, width), count in sorted(
                Counter(measured.sizes).items(), key=lambda item: (-item[1], item[0])
            )
        ),
        classes=tuple(
            _class_figures(class_id, name, images[class_id], measured)
            for class_id, name in enumerate(dataset.class_names, 1)
        ),
        defects_per_image=_spread(measured.defects_per_image),
        undrawn=tuple(measured.undrawn),
        drawn_on_defect_free=tuple(measured.drawn_on_defect_free),
        mask_errors=tuple(measured.mask_errors),
        unreadable=tuple(measured.unreadable),
        duplicates=tuple(tuple(members) for members in same.values() if len(members) > 1),
        near_duplicates=tuple(
            NearPair(names[pair.first], names[pair.second], pair.likeness)
            for pair in pairs
            if measured.digests[pair.first] != measured.digests[pair.second]
        ),
        groups=len(groups),
        grouped_images=sum(map(len, groups)),
        across_parts=_across(groups, names, splits),
        parts=None if splits is None else split.count(splits, dataset),
        unused=indices.unused if indices is not None else 0,
    )


class _Measurements:
    """Measurements of all images of one pass."""

    def __init__(self, count: int) -> None:
        self.prints = near_duplicates.empty_prints(count)
        self.digests: list[str | None] = [None] * count
        self.sizes: list[tuple[int, int]] = []
        self.areas: dict[int, list[int]] = defaultdict(list)
        self.shares: dict[int, list[float]] = defaultdict(list)
        self.per_image: dict[int, list[int]] = defaultdict(list)
        self.defects_per_image: list[int] = []
        self.undrawn: list[str] = []
        self.drawn_on_defect_free: list[str] = []
        self.mask_errors: list[str] = []
        self.unreadable: list[str] = []

    def measure(self, planes: Planes) -> int:
        """Add the defects in `planes`, bool (lines, pixels, classes); return their number."""
        total, image_px = 0, planes.shape[0] * planes.shape[1]
        for class_id in np.flatnonzero(planes.any(axis=(0, 1))) + 1:
            plane = np.ascontiguousarray(planes[:, :, class_id - 1]).view(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(plane, connectivity=8)
            areas = stats[1:, cv2.CC_STAT_AREA].tolist()
            self.areas[int(class_id)] += areas
            self.shares[int(class_id)] += [area / image_px for area in areas]
            self.per_image[int(class_id)].append(len(areas))
            total += len(areas)
        return total


def _measure(dataset: DataSet, progress: bool) -> _Measurements:
    measured = _Measurements(len(dataset.samples))
    samples = dataset.samples
    bar = each(samples, "reading images", "image", total=len(samples), shown=progress)
    for index, sample in enumerate(bar):
        try:
            image = dataset.image(index)
            measured.digests[index] = dataset.digest(index)
        except WorkshopError as error:
            measured.unreadable.append(str(error))
            continue
        measured.sizes.append((image.shape[0], image.shape[1]))
        measured.prints[index] = near_duplicates.fingerprint(image)
        try:
            defects = measured.measure(dataset.planes(index))
        except WorkshopError as error:
            measured.mask_errors.append(str(error))
            continue
        if defects:
            measured.defects_per_image.append(defects)
        if sample.defective and not defects:
            measured.undrawn.append(sample.name)
        if defects and not sample.defective:
            measured.drawn_on_defect_free.append(sample.name)
    return measured


def _class_figures(class_id: int, name: str, images: int, measured: _Measurements) -> ClassCounts:
    areas = measured.areas[class_id]
    return ClassCounts(
        class_id=class_id,
        name=name,
        images=images,
        drawn=len(measured.per_image[class_id]),
        defects=len(areas),
        per_image=_spread(measured.per_image[class_id]),
        area_px=_spread(areas),
        area_share=_spread(measured.shares[class_id]),
        areas_log2=_by_power_of_two(areas),
    )


def _by_power_of_two(areas: list[int]) -> tuple[int, ...]:
    if not areas:
        return ()
    return tuple(np.bincount([area.bit_length() - 1 for area in areas]).tolist())


def _spread(values: list[int] | list[float]) -> Spread | None:
    if not values:
        return None
    low, p5, p25, median, p75, p95, high = np.percentile(values, _PERCENTILES).tolist()
    return Spread(len(values), low, p5, p25, median, p75, p95, high)


def _members(numbers: NDArray[np.int64]) -> list[list[int]]:
    """Return the groups of two or more, as indices."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(numbers.tolist()):
        groups[number].append(index)
    return [members for members in groups.values() if len(members) > 1]


def _across(
    groups: list[list[int]], names: list[str], splits: split.Split | None
) -> tuple[tuple[str, ...], ...]:
    if splits is None:
        return ()
    part_of = {name: part for part in split.PARTS for name in splits.part(part)}
    found = []
    for members in groups:
        used = [names[i] for i in members if names[i] in part_of]
        if len({part_of[name] for name in used}) > 1:
            found.append(tuple(used))
    return tuple(found)
