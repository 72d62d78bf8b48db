"""Which images train, which choose, which judge: the split, and the list that keeps it.

The list is a CSV file of `file,part`, sorted, so that a split can be read, compared and committed.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workshop.datasets import DataSet
from workshop.datasets.files import check_name, read_table
from workshop.errors import WorkshopError

PARTS = ("train", "validation", "test")
COLUMNS = ("file", "part")


@dataclass(frozen=True, slots=True)
class Split:
    """Names of the samples of each part, sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def part(self, name: str) -> tuple[str, ...]:
        """`train`, `validation` or `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True, slots=True)
class Indices:
    """A split laid on a data set: indices of its samples, ascending; `unused` are in no part."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    unused: int


def split(
    dataset: DataSet,
    *,
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> Split:
    """Split so that each class is shared out by `fractions` (training, validation, test).

    The class of a sample is its first; defect-free is one too, and so is defective of no class.
    Samples of one group (see `workshop.near_duplicates.groups`) come into one part. The rarest
    class is shared out first, its largest group first, each to the part that lacks most; `seed`
    breaks ties.
    """
    check_fractions(fractions)
    samples = dataset.samples
    strata = [(s.class_ids or (-1 if s.defective else 0,))[0] for s in samples]
    numbers = list(range(len(samples))) if groups is None else groups.tolist()
    if len(numbers) != len(samples):
        raise ValueError(f"{len(numbers)} group numbers for {len(samples)} samples")
    members: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(numbers):
        members[number].append(index)
    counts = {c: strata.count(c) for c in sorted(set(strata))}
    lacking = {c: np.asarray(fractions) * n for c, n in counts.items()}
    order = np.random.default_rng(seed).permutation(len(members))
    units = [list(members.values())[i] for i in order]
    rank = {c: i for i, c in enumerate(sorted(counts, key=lambda c: (counts[c], c)))}

    def urgency(unit: list[int]) -> tuple[int, int]:
        rarest = min(rank[strata[i]] for i in unit)
        return rarest, -sum(rank[strata[i]] == rarest for i in unit)

    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for unit in sorted(units, key=urgency):
        rarest = min((strata[i] for i in unit), key=lambda c: rank[c])
        part = int(lacking[rarest].argmax())
        for index in unit:
            lacking[strata[index]][part] -= 1
            parts[part].append(samples[index].name)
    return Split(*(tuple(sorted(part)) for part in parts))


def lay(split: Split, dataset: DataSet, *, for_training: bool = False) -> Indices:
    """The split's samples by index. Raises WorkshopError for a name that is not in the data.

    `for_training` asks for defects in training, in validation, and in test where that is not
    empty.
    """
    at = {sample.name: index for index, sample in enumerate(dataset.samples)}
    parts = {}
    for part in PARTS:
        unknown = [name for name in split.part(part) if name not in at]
        if unknown:
            raise WorkshopError(
                f"{unknown[0]}: in the split, but not in the data set {dataset.name} "
                f"({len(unknown)} such in {part}); make the split anew or add the images"
            )
        parts[part] = tuple(sorted(at[name] for name in split.part(part)))
        wanted = for_training and (part != "test" or parts[part])
        if wanted and not any(dataset.samples[i].defective for i in parts[part]):
            raise WorkshopError(
                f"{part}: a split with no defects in this part; make it anew with more images"
            )
    used = sum(map(len, parts.values()))
    return Indices(**parts, unused=len(at) - used)


def count(split: Split, dataset: DataSet) -> dict[str, dict[str, int]]:
    """Images by part: all, defect-free, and of each class; an image of two classes counts for
    both."""
    of = {sample.name: sample for sample in dataset.samples}
    counts = {}
    for part in PARTS:
        samples = [of[name] for name in split.part(part)]
        counts[part] = {
            "images": len(samples),
            "defect_free": sum(not s.defective for s in samples),
        }
        for class_id, name in enumerate(dataset.class_names, 1):
            counts[part][name] = sum(class_id in s.class_ids for s in samples)
    return counts


def read(path: Path) -> Split:
    """A list as `write` makes it. Raises WorkshopError."""
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    seen = set()
    for where, (name, part) in read_table(path, COLUMNS):
        if part not in parts:
            raise WorkshopError(f"{where}: part {part!r}; write {', '.join(PARTS)}")
        if check_name(name, where) in seen:
            raise WorkshopError(f"{where}: {name} is there twice; give each image one part")
        seen.add(name)
        parts[part].append(name)
    if not seen:
        raise WorkshopError(f"{path}: no images in the list; make it anew")
    return Split(*(tuple(sorted(parts[part])) for part in PARTS))


def write(path: Path, split: Split) -> None:
    """The list, sorted by name. Raises WorkshopError."""
    rows = sorted((name, part) for part in PARTS for name in split.part(part))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(rows)
    except OSError as error:
        raise WorkshopError(f"{path}: {error.strerror}; give a file to write") from None


def check_fractions(fractions: Sequence[float]) -> None:
    """Three shares that add up to 1, or WorkshopError."""
    if len(fractions) != len(PARTS) or not all(0 <= f <= 1 for f in fractions):
        raise WorkshopError(f"fractions: {tuple(fractions)}: give three shares from 0 to 1")
    if abs(sum(fractions) - 1) > 1e-6:
        raise WorkshopError(f"fractions: {tuple(fractions)}: they must add up to 1")
