"""Split into training, validation and test images, and the list that records it.

The list is a CSV file of `file,part`, sorted, so that a split can be read, compared and committed.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workshop.datasets import DataSet, Sample
from workshop.datasets.files import check_name, read_table
from workshop.errors import WorkshopError

Floats = NDArray[np.float64]

PARTS = ("train", "validation", "test")
COLUMNS = ("file", "part")


@dataclass(frozen=True, slots=True)
class Split:
    """Sample names of each part, sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def part(self, name: str) -> tuple[str, ...]:
        """Return the names of `train`, `validation` or `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True, slots=True)
class Indices:
    """Sample indices of a split of a data set, ascending; `unused` are in no part."""

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
    """Split by `fractions` (training, validation, test) and class, see `share_out`.

    Samples of one group (see `workshop.near_duplicates.groups`) are placed in one part.
    """
    check_fractions(fractions)
    samples = dataset.samples
    numbers = list(range(len(samples))) if groups is None else groups.tolist()
    if len(numbers) != len(samples):
        raise ValueError(f"{len(numbers)} group numbers for {len(samples)} samples")
    parts = share_out([stratum(s) for s in samples], numbers, fractions, seed=seed)
    return Split(*(tuple(sorted(samples[i].name for i in part)) for part in parts))


def stratum(sample: Sample) -> int:
    """Return the class of a sample: its first, 0 for defect-free, -1 for defective of no class."""
    return (sample.class_ids or (-1 if sample.defective else 0,))[0]


def share_out(
    strata: Sequence[int],
    groups: Sequence[int],
    fractions: Sequence[float],
    *,
    seed: int = 0,
    part_of: Callable[[Floats, list[int]], int] = lambda lack, _: int(lack.argmax()),
) -> list[list[int]]:
    """Share out sample indices, so that each part has its fraction of each class.

    The rarest class comes first, its largest group first.

    Args:
        strata: The class of each sample.
        groups: The group of each sample; a group is placed in one part.
        fractions: The fraction of each part.
        seed: Seed of the order of ties: neighbours in the order of names are often neighbours on
            the strip.
        part_of: Chooses the part for the samples of a group from the deficit of each part in the
            group's rarest class; by default the largest deficit.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(groups):
        members[number].append(index)
    counts = {c: strata.count(c) for c in sorted(set(strata))}
    lacking = {c: np.asarray(fractions, np.float64) * n for c, n in counts.items()}
    order = np.random.default_rng(seed).permutation(len(members))
    units = [list(members.values())[i] for i in order]
    rank = {c: i for i, c in enumerate(sorted(counts, key=lambda c: (counts[c], c)))}

    def urgency(unit: list[int]) -> tuple[int, int]:
        rarest = min(rank[strata[i]] for i in unit)
        return rarest, -sum(rank[strata[i]] == rarest for i in unit)

    parts: list[list[int]] = [[] for _ in fractions]
    for unit in sorted(units, key=urgency):
        rarest = min((strata[i] for i in unit), key=lambda c: rank[c])
        part = part_of(lacking[rarest], unit)
        for index in unit:
            lacking[strata[index]][part] -= 1
            parts[part].append(index)
    return parts


def lay(split: Split, dataset: DataSet, *, for_training: bool = False) -> Indices:
    """Return the split's samples by index; raise WorkshopError for a name not in the data.

    With `for_training` also raise it if training, validation or a non-empty test has no defects.
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
    """Count the images by part: all, defect-free, and of each class.

    An image of two classes counts for both.
    """
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
    """Read a list as `write` makes it; raise WorkshopError if it is unusable."""
    parts = read_parts(path, PARTS)
    return Split(*(tuple(sorted(parts[part])) for part in PARTS))


def read_parts(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Read the images of each part of a list, with parts of these names. Raises WorkshopError."""
    parts: dict[str, list[str]] = {part: [] for part in names}
    seen = set()
    for where, (name, part) in read_table(path, COLUMNS):
        if part not in parts:
            raise WorkshopError(f"{where}: part {part!r}; write {', '.join(names)}")
        if check_name(name, where) in seen:
            raise WorkshopError(f"{where}: {name} is there twice; give each image one part")
        seen.add(name)
        parts[part].append(name)
    if not seen:
        raise WorkshopError(f"{path}: no images in the list; make it anew")
    return parts


def text(parts: Mapping[str, Iterable[str]]) -> str:
    """Return the list of the images of each part, sorted by name."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(sorted((name, part) for part, names in parts.items() for name in names))
    return out.getvalue()


def write(path: Path, split: Split) -> None:
    """Write the list of a split; raise WorkshopError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text({part: split.part(part) for part in PARTS}), encoding="utf-8")
    except OSError as error:
        raise WorkshopError(f"{path}: {error.strerror}; give a file to write") from None


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise WorkshopError unless the fractions are three shares that add up to 1."""
    if len(fractions) != len(PARTS) or not all(0 <= f <= 1 for f in fractions):
        raise WorkshopError(f"fractions: {tuple(fractions)}: give three shares from 0 to 1")
    if abs(sum(fractions) - 1) > 1e-6:
        raise WorkshopError(f"fractions: {tuple(fractions)}: they must add up to 1")
