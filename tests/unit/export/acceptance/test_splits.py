"""The four sets: disjoint, whole groups, seen images barred, mistakes in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.frame import Image
from export.acceptance import splits
from workshop.datasets import Planes, Sample
from workshop.errors import WorkshopError

KINDS = st.sampled_from([(False, ()), (True, ()), (True, (1,)), (True, (2,)), (True, (1, 2))])


class Names:
    """A data set of which only labels and digests are asked; the digest is the name."""

    name, class_names = "names", ("one", "two")

    def __init__(self, kinds: list[tuple[bool, tuple[int, ...]]]) -> None:
        self.samples = tuple(Sample(f"{i:03d}.png", *kind) for i, kind in enumerate(kinds))

    def image(self, index: int) -> Image:
        raise AssertionError("no image is read")

    def planes(self, index: int) -> Planes:
        raise AssertionError("no mask is read")

    def digest(self, index: int) -> str:
        return self.samples[index].name


def _made(
    kinds: list[tuple[bool, tuple[int, ...]]],
    groups: list[int],
    old: list[bool],
    known: bool = True,
    limit: int = 1000,
) -> splits.AcceptanceSets:
    return splits.make(
        Names(kinds), np.array(groups), np.array(old), known=known, limits=[limit] * 4
    )


@given(
    rows=st.lists(st.tuples(KINDS, st.integers(0, 30), st.booleans()), min_size=1, max_size=80),
    known=st.booleans(),
    limit=st.integers(1, 100),
)
@settings(deadline=None)
def test_sets_are_disjoint_keep_groups_whole_and_bar_what_was_seen(
    rows: list[tuple[tuple[bool, tuple[int, ...]], int, bool]], known: bool, limit: int
) -> None:
    kinds, groups, old = (list(column) for column in zip(*rows, strict=True))
    made = _made(kinds, groups, old, known, limit)
    assert made == _made(kinds, groups, old, known, limit)
    indices = [i for _, part in made.parts() for i in part]
    assert len(indices) == len(set(indices))
    assert all(len(part) <= limit for _, part in made.parts())
    if limit == 100:
        assert sorted(indices) == list(range(len(rows)))
    where = {groups[i]: part for part, ids in made.parts() for i in ids}
    assert all(where[groups[i]] == part for part, ids in made.parts() for i in ids)
    assert not any(old[i] for i in (*made.threshold, *made.test))


def test_unseen_images_fill_threshold_and_test_first() -> None:
    kinds = [(True, (1,)), (False, ())] * 20
    # The last ten of forty are new: five of each kind.
    made = _made(kinds, list(range(40)), [i < 30 for i in range(40)])
    assert {*made.threshold, *made.test} == set(range(30, 40))
    assert abs(len(made.threshold) - len(made.test)) <= 2
    # All are new: a quarter each of either kind.
    made = _made(kinds, list(range(40)), [False] * 40)
    for _, part in made.parts():
        assert sum(i % 2 for i in part) == 5
        assert len(part) == 10


def test_where_nothing_is_known_all_is_shared_out_by_fractions() -> None:
    made = _made([(True, (2,)), (False, ())] * 8, list(range(16)), [False] * 16, known=False)
    assert [len(part) for _, part in made.parts()] == [4, 4, 4, 4]


def test_a_common_class_does_not_push_out_a_rare_one() -> None:
    kinds = [(False, ())] * 80 + [(True, (1,))] * 8
    made = _made(kinds, list(range(88)), [False] * 88, limit=4)
    for _, part in made.parts():
        assert sum(i >= 80 for i in part) == 2


@pytest.mark.parametrize(
    ("kinds", "where", "named"),
    [
        ([(False, ())] * 16, "--data", "range set: no defective image"),
        ([(True, (1,))] * 32, "--data", "search set: no defect-free image"),
        ([(True, (1,)), (False, ())] * 4, "--data", "range set: 2 images"),
    ],
)
def test_a_set_that_lacks_something_is_named(
    kinds: list[tuple[bool, tuple[int, ...]]], where: str, named: str
) -> None:
    data, count = Names(kinds), len(kinds)
    made = _made(kinds, list(range(count)), [False] * count)
    with pytest.raises(WorkshopError, match=named):
        splits.check(made, data, np.arange(count), np.zeros(count, np.bool_), where)


KIND_OF_LIST = [(True, (1,)), (False, ())] * 10


def _list(tmp_path: Path, changed: dict[int, str], extra: str = "") -> Path:
    parts = ["range"] * 8 + ["search"] * 4 + ["threshold"] * 4 + ["test"] * 4
    rows = [f"{i:03d}.png,{changed.get(i, part)}" for i, part in enumerate(parts)]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["file,part", *rows]) + "\n" + extra)
    return path


def test_a_list_is_read_as_it_is_written(tmp_path: Path) -> None:
    data = Names(KIND_OF_LIST)
    read = splits.read(_list(tmp_path, {}), data, known=True)
    splits.check(read, data, np.arange(20), np.zeros(20, np.bool_), "--sets")
    again = tmp_path / "again.csv"
    again.write_bytes(splits.text(read, data))
    assert splits.read(again, data, known=True) == read


@pytest.mark.parametrize(
    ("changed", "extra", "alike", "old", "named"),
    [
        ({}, "003.png,test\n", (), (), "003.png is there twice"),
        ({}, "none.png,test\n", (), (), "none.png: not in the data"),
        ({2: "train"}, "", (), (), "part 'train'"),
        ({}, "", (0, 19), (), "000.png (range) and 019.png (test) show the same thing"),
        ({}, "", (), (13, 15), "threshold: 013.png, 015.png: seen in training"),
        ({}, "", (), (16, 17, 18, 19), "016.png, 017.png, 018.png and 1 more: seen"),
    ],
)
def test_a_list_that_mixes_the_sets_is_refused_in_one_line(
    changed: dict[int, str],
    extra: str,
    alike: tuple[int, ...],
    old: tuple[int, ...],
    named: str,
    tmp_path: Path,
) -> None:
    data, groups, seen = Names(KIND_OF_LIST), np.arange(20), np.zeros(20, np.bool_)
    groups[list(alike)] = 99
    seen[list(old)] = True
    with pytest.raises(WorkshopError) as error:
        read = splits.read(_list(tmp_path, changed, extra), data, known=True)
        splits.check(read, data, groups, seen, "--sets: list.csv")
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("--sets: ")


def test_seen_is_told_by_the_digest() -> None:
    data = Names(KIND_OF_LIST)
    assert np.flatnonzero(splits.seen(data, {"002.png", "019.png", "else"})).tolist() == [2, 19]
