"""Four disjoint sets of labelled images: int8 ranges, layer search, thresholds, final test.

Near-duplicates stay in one set. Images that a network has seen in training may only set ranges and
search layers: every form scores too well on them. The list is a sorted CSV file of `file,part`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workshop.datasets import DataSet, Sample
from workshop.errors import WorkshopError
from workshop.splits import read_parts, share_out, stratum
from workshop.splits import text as list_text

PARTS = ("range", "search", "threshold", "test")
FRACTIONS = (0.25, 0.25, 0.25, 0.25)
_BARRED = ("threshold", "test")
_NAMED = 3


@dataclass(frozen=True, slots=True)
class AcceptanceSets:
    """Indices into the data set's samples, ascending; `known`: the model cards list seen images."""

    range: tuple[int, ...]
    search: tuple[int, ...]
    threshold: tuple[int, ...]
    test: tuple[int, ...]
    known: bool

    def parts(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return the name and the indices of each set, in the order of PARTS."""
        return tuple((part, getattr(self, part)) for part in PARTS)


def seen(dataset: DataSet, digests: Collection[str]) -> NDArray[np.bool_]:
    """Return bool (n,): samples whose digest is in `digests`, taken from the networks' cards."""
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
    """Split each class by FRACTIONS, groups kept whole; the same data gives the same sets.

    A group with a seen image counts as seen and goes into range or search. The other groups fill
    threshold and test first if `known`, otherwise all four sets.

    Args:
        dataset: The labelled images, n of them.
        groups: int64 (n,), the near-duplicate group of each sample.
        seen: bool (n,), as `seen` returns it.
        known: True if the networks' cards list the images they have seen.
        limits: Most images of each part; classes are taken in turn up to it, the rest is left out.
    """
    strata = [stratum(sample) for sample in dataset.samples]

    def part_of(lack: NDArray[np.float64], unit: list[int]) -> int:
        return _part(lack, seen=bool(seen[unit].any()), known=known)

    parts = share_out(strata, groups.tolist(), FRACTIONS, part_of=part_of)
    kept = [
        tuple(sorted(_thinned(part, strata, limit)))
        for part, limit in zip(parts, limits, strict=True)
    ]
    return AcceptanceSets(kept[0], kept[1], kept[2], kept[3], known)


def _part(lack: NDArray[np.float64], *, seen: bool, known: bool) -> int:
    if seen:
        return int(lack[:2].argmax())
    if known:
        return 2 + int(lack[2:].argmax()) if lack[2:].max() > 0 else int(lack[:2].argmax())
    return int(lack.argmax())


def _thinned(part: Sequence[int], strata: Sequence[int], limit: int) -> list[int]:
    """Return the first `limit` indices, classes in turn: no common class displaces a rare one."""
    turn: dict[int, int] = defaultdict(int)
    keyed = []
    for index in part:
        keyed.append((turn[strata[index]], strata[index], index))
        turn[strata[index]] += 1
    return [index for *_, index in sorted(keyed)[:limit]]


def read(path: Path, dataset: DataSet, *, known: bool) -> AcceptanceSets:
    """Read a list as `text` writes it; raise WorkshopError for mistakes and unknown names."""
    at = {sample.name: index for index, sample in enumerate(dataset.samples)}
    try:
        named = read_parts(path, PARTS)
    except WorkshopError as error:
        raise WorkshopError(f"--sets: {error}") from None
    if unknown := [name for names in named.values() for name in names if name not in at]:
        raise WorkshopError(
            f"--sets: {path}: {_names(unknown)}: not in the data; take the rows out"
        )
    kept = [tuple(sorted(at[name] for name in named[part])) for part in PARTS]
    return AcceptanceSets(kept[0], kept[1], kept[2], kept[3], known)


def check(
    sets: AcceptanceSets,
    dataset: DataSet,
    groups: NDArray[np.int64],
    seen: NDArray[np.bool_],
    where: str,
) -> None:
    """Raise WorkshopError for images in a set where they must not be, or for a set that lacks some.

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
    """Return the list as CSV, sorted by name."""
    names = {part: [dataset.samples[i].name for i in indices] for part, indices in sets.parts()}
    return list_text(names).encode()


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
