"""Which labelled image sets the int8 ranges, searches layers, sets thresholds, judges in the end.

Four disjoint sets: what chose must not judge. Images that show the same thing stay in one set. An
image that a network has seen in training may set ranges and search layers, no more: on seen images
every form looks better than it is. The list is a CSV file of `file,part`, sorted.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workshop.datasets import DataSet, Sample
from workshop.datasets.files import check_name, read_table
from workshop.errors import WorkshopError

PARTS = ("range", "search", "threshold", "test")
FRACTIONS = (0.25, 0.25, 0.25, 0.25)
_COLUMNS = ("file", "part")
_BARRED = ("threshold", "test")
_NAMED = 3


@dataclass(frozen=True, slots=True)
class AcceptanceSets:
    """Indices into the data set's samples, ascending. `known`: the networks say what they saw."""

    range: tuple[int, ...]
    search: tuple[int, ...]
    threshold: tuple[int, ...]
    test: tuple[int, ...]
    known: bool

    def parts(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple((part, getattr(self, part)) for part in PARTS)


def seen(dataset: DataSet, digests: Collection[str]) -> NDArray[np.bool_]:
    """bool (n,): the samples whose digest is among those of the networks' cards."""
    if not digests:
        return np.zeros(len(dataset.samples), np.bool_)
    return np.array([dataset.digest(i) in digests for i in range(len(dataset.samples))])


def make(
    dataset: DataSet,
    groups: NDArray[np.int64],
    seen: NDArray[np.bool_],
    *,
    known: bool,
    limits: Sequence[int],
) -> AcceptanceSets:
    """Share each class out by FRACTIONS, a group whole; the same data, the same sets.

    The class of a sample is its first. A group with a seen image counts as seen and goes into
    range or search. The others fill threshold and test first, where it is known what was seen;
    where it is not, all four. The rarest class comes first, its largest group first. Of more
    images than `limits` (one for each part) the classes are taken in turn and the rest is left out.
    """
    strata = [_stratum(sample) for sample in dataset.samples]
    members: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(groups.tolist()):
        members[number].append(index)
    counts = {c: strata.count(c) for c in sorted(set(strata))}
    lacking = {c: np.asarray(FRACTIONS, np.float64) * n for c, n in counts.items()}
    rank = {c: i for i, c in enumerate(sorted(counts, key=lambda c: (counts[c], c)))}
    # Neighbours in the order of names are often neighbours on the strip.
    order = np.random.default_rng(0).permutation(len(members))
    units = [list(members.values())[i] for i in order]

    def urgency(unit: list[int]) -> tuple[int, int]:
        rarest = min(rank[strata[i]] for i in unit)
        return rarest, -sum(rank[strata[i]] == rarest for i in unit)

    parts: tuple[list[int], ...] = ([], [], [], [])
    for unit in sorted(units, key=urgency):
        lack = lacking[min((strata[i] for i in unit), key=lambda c: rank[c])]
        part = _part(lack, seen=bool(seen[unit].any()), known=known)
        for index in unit:
            lacking[strata[index]][part] -= 1
            parts[part].append(index)
    kept = [
        tuple(sorted(_thinned(part, strata, limit)))
        for part, limit in zip(parts, limits, strict=True)
    ]
    return AcceptanceSets(kept[0], kept[1], kept[2], kept[3], known)


def _stratum(sample: Sample) -> int:
    return (sample.class_ids or (-1 if sample.defective else 0,))[0]


def _part(lack: NDArray[np.float64], *, seen: bool, known: bool) -> int:
    if seen:
        return int(lack[:2].argmax())
    if known:
        return 2 + int(lack[2:].argmax()) if lack[2:].max() > 0 else int(lack[:2].argmax())
    return int(lack.argmax())


def _thinned(part: Sequence[int], strata: Sequence[int], limit: int) -> list[int]:
    """The first `limit`, a class after the other: a common one must not push out a rare one."""
    turn: dict[int, int] = defaultdict(int)
    keyed = []
    for index in part:
        keyed.append((turn[strata[index]], strata[index], index))
        turn[strata[index]] += 1
    return [index for *_, index in sorted(keyed)[:limit]]


def read(path: Path, dataset: DataSet, *, known: bool) -> AcceptanceSets:
    """A list as `text` makes it. Raises WorkshopError for unknown names and names in two parts."""
    at = {sample.name: index for index, sample in enumerate(dataset.samples)}
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    twice, unknown, given = [], [], set()
    for where, (name, part) in read_table(path, _COLUMNS):
        if part not in parts:
            raise WorkshopError(f"--sets: {where}: part {part!r}; write {', '.join(PARTS)}")
        if check_name(name, where) in given:
            twice.append(name)
        elif name not in at:
            unknown.append(name)
        else:
            parts[part].append(at[name])
        given.add(name)
    if twice:
        raise WorkshopError(
            f"--sets: {path}: {_names(twice)}: there twice; give each image one part"
        )
    if unknown:
        raise WorkshopError(
            f"--sets: {path}: {_names(unknown)}: not in the data; take the rows out"
        )
    kept = [tuple(sorted(parts[part])) for part in PARTS]
    return AcceptanceSets(kept[0], kept[1], kept[2], kept[3], known)


def check(
    sets: AcceptanceSets,
    dataset: DataSet,
    groups: NDArray[np.int64],
    seen: NDArray[np.bool_],
    where: str,
) -> None:
    """Raises WorkshopError naming the images that must not be where they are, or what a set lacks.

    `where` is the argument that the sets come from.
    """
    names = [sample.name for sample in dataset.samples]
    for part in _BARRED:
        if old := [names[i] for i in getattr(sets, part) if seen[i]]:
            raise WorkshopError(
                f"{where}: {part}: {_names(old)}: seen in training; put them into range or search"
            )
    first: dict[int, tuple[str, int]] = {}
    for part, indices in sets.parts():
        for index in indices:
            other, twin = first.setdefault(int(groups[index]), (part, index))
            if other != part:
                raise WorkshopError(
                    f"{where}: {names[twin]} ({other}) and {names[index]} ({part}) show the same "
                    "thing; put them into one set"
                )
    for part, indices in sets.parts():
        _check_enough(part, [dataset.samples[i] for i in indices], where)


def _check_enough(part: str, samples: Sequence[Sample], where: str) -> None:
    defective = [s for s in samples if s.defective]
    lacks = ""
    if not defective:
        lacks = "no defective image"
    elif part == "range":
        lacks = f"{len(samples)} images, at least 4 are needed" if len(samples) < 4 else ""
    elif len(defective) == len(samples):
        lacks = "no defect-free image"
    elif part != "threshold" and not any(s.drawn for s in defective):
        lacks = "no defect with a mask"
    if lacks:
        raise WorkshopError(
            f"{where}: {part} set: {lacks}; add labelled images (new to the networks for "
            "threshold and test), or give --samples and do without the guard"
        )


def text(sets: AcceptanceSets, dataset: DataSet) -> bytes:
    """The list, sorted by name."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows(sorted((dataset.samples[i].name, p) for p, part in sets.parts() for i in part))
    return out.getvalue().encode()


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
