"""The split: shares, groups, the list and its errors, and the lists that are committed."""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.frame import Image
from tests.support.paths import ROOT
from training.cli import data as commands_data
from workshop import splits
from workshop.datasets import Planes, Sample, open_dataset
from workshop.errors import WorkshopError
from workshop.near_duplicates import groups

COMMITTED = ROOT / "training" / "splits"


class Names:
    """A data set of which only the labels are asked."""

    name, class_names = "names", ("one", "two", "three")

    def __init__(self, kinds: list[tuple[bool, tuple[int, ...]]]) -> None:
        self.samples = tuple(Sample(f"{i:04d}.png", *kind) for i, kind in enumerate(kinds))

    def image(self, index: int) -> Image:
        raise AssertionError("a split reads no image")

    def planes(self, index: int) -> Planes:
        raise AssertionError("a split reads no mask")

    def digest(self, index: int) -> str:
        raise AssertionError("a split reads no image")


SOUND = (False, ())
UNDRAWN = (True, ())
KINDS = st.sampled_from([SOUND, UNDRAWN, (True, (1,)), (True, (2,)), (True, (1, 3)), (True, (3,))])


@given(
    kinds=st.lists(KINDS, min_size=1, max_size=80),
    seed=st.integers(0, 5),
    weights=st.tuples(*[st.integers(0, 9)] * 3).filter(any),
)
@settings(deadline=None)
def test_each_class_is_shared_out_to_within_one_image(
    kinds: list[tuple[bool, tuple[int, ...]]], seed: int, weights: tuple[int, int, int]
) -> None:
    dataset = Names(kinds)
    fractions = [w / sum(weights) for w in weights]
    made = splits.split(dataset, fractions=fractions, seed=seed)
    everyone = sorted([*made.train, *made.validation, *made.test])
    assert everyone == [s.name for s in dataset.samples]
    stratum = {s.name: (s.defective, s.class_ids[:1]) for s in dataset.samples}
    total = Counter(stratum.values())
    for part, fraction in zip(splits.PARTS, fractions, strict=True):
        got = Counter(stratum[name] for name in made.part(part))
        for kind, n in total.items():
            assert abs(got[kind] - fraction * n) < 1 + 1e-9
            if fraction == 0:
                assert got[kind] == 0


@given(kinds=st.lists(KINDS, min_size=1, max_size=60), data=st.data(), seed=st.integers(0, 5))
@settings(deadline=None)
def test_a_group_is_never_torn(
    kinds: list[tuple[bool, tuple[int, ...]]], data: st.DataObject, seed: int
) -> None:
    numbers = data.draw(st.lists(st.integers(0, 9), min_size=len(kinds), max_size=len(kinds)))
    dataset = Names(kinds)
    made = splits.split(dataset, seed=seed, groups=np.array(numbers))
    part_of = {name: part for part in splits.PARTS for name in made.part(part)}
    assert len(part_of) == len(kinds)
    assert len({(n, part_of[s.name]) for n, s in zip(numbers, dataset.samples, strict=True)}) == (
        len(set(numbers))
    )


def test_the_seed_decides_and_nothing_else() -> None:
    dataset = Names([SOUND] * 40 + [(True, (1,))] * 20)
    one, again, other = (splits.split(dataset, seed=seed) for seed in (1, 1, 2))
    assert one == again != other


def test_a_rare_class_reaches_the_test() -> None:
    made = splits.split(Names([SOUND] * 600 + [(True, (1,))] * 12))
    rare = [sum(name >= "0600" for name in made.part(part)) for part in splits.PARTS]
    assert rare == [7, 2, 3]


@pytest.mark.parametrize(
    ("fractions", "words"),
    [
        ((0.5, 0.5), "three shares"),
        ((0.5, 0.6, -0.1), "three shares"),
        ((0.5, 0.5, 0.5), "add up to 1"),
        ((float("nan"), 0.5, 0.5), "three shares"),
    ],
)
def test_fractions_that_are_none(fractions: tuple[float, ...], words: str) -> None:
    with pytest.raises(WorkshopError, match=words):
        splits.split(Names([SOUND]), fractions=fractions)


# The list.

FILE_NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\"), min_size=1
).filter(lambda name: name not in (".", ".."))


@given(names=st.lists(FILE_NAMES, unique=True, min_size=1, max_size=20), data=st.data())
@settings(deadline=None)
def test_a_list_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    parts: dict[str, list[str]] = {part: [] for part in splits.PARTS}
    for name in sorted(names):
        parts[data.draw(st.sampled_from(splits.PARTS))].append(name)
    made = splits.Split(*(tuple(part) for part in parts.values()))
    path = tmp_path_factory.mktemp("lists") / "split.csv"
    splits.write(path, made)
    assert splits.read(path) == made
    before = path.read_bytes()
    splits.write(path, splits.read(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file\na.png\n", "no column part"),
        ("file,part\n", "no images in the list"),
        ("file,part\na.png,train\na.png,test\n", "line 3: a.png is there twice"),
        ("file,part\na.png,training\n", "line 2: part 'training'; write train, validation, test"),
        ("file,part\n../a.png,train\n", "not a plain file name"),
        ("file,part\na.png\n", "line 2: 1 fields"),
    ],
)
def test_faults_of_a_list(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkshopError) as caught:
        splits.read(path)
    assert words in str(caught.value)
    assert "split.csv" in str(caught.value)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkshopError, match=r"none\.csv: cannot be read: No such file"):
        splits.read(tmp_path / "none.csv")


def test_a_split_is_laid_on_the_data() -> None:
    dataset = Names([SOUND, (True, (1,)), UNDRAWN, SOUND])
    made = splits.Split(("0001.png",), ("0002.png",), ("0000.png",))
    assert splits.lay(made, dataset) == splits.Indices((1,), (2,), (0,), unused=1)
    assert splits.count(made, dataset)["validation"] == {
        "images": 1, "defect_free": 0, "one": 0, "two": 0, "three": 0,
    }  # fmt: skip
    with pytest.raises(WorkshopError, match=r"^test: a split with no defects"):
        splits.lay(made, dataset, for_training=True)
    untested = splits.Split(made.train, made.validation, ())
    assert splits.lay(untested, dataset, for_training=True).unused == 2
    with pytest.raises(WorkshopError, match=r"^validation: a split with no defects"):
        splits.lay(splits.Split(("0001.png",), (), ()), dataset, for_training=True)
    strange = splits.Split(("0001.png",), ("x.png",), ())
    with pytest.raises(WorkshopError, match=r"^x\.png: in the split, but not in the data set"):
        splits.lay(strange, dataset)


# The command.


def _run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    commands_data.add_split(parser.add_subparsers(required=True))
    args = parser.parse_args(["split", *argv])
    return int(args.run(args))


def test_the_command_writes_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for i in range(20):
        image = rng.integers(0, 255, (64, 64), np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        mask[5:9, 5:9] = i % 2
        cv2.imwrite(str(tmp_path / f"data/images/{i:02d}.png"), image)
        cv2.imwrite(str(tmp_path / f"data/masks/{i:02d}.png"), mask)
    # Two that show the same thing.
    cv2.imwrite(str(tmp_path / "data/images/19.png"), 255 - rng.integers(0, 9, (64, 64), np.uint8))
    twin = cv2.imread(str(tmp_path / "data/images/03.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "data/images/19.png"), (twin * 0.8).astype(np.uint8))
    out = tmp_path / "lists/split.csv"
    assert _run(str(tmp_path / "data"), "--out", str(out), "--fractions", "0.5,0.2,0.3") == 0
    assert "20 images in 19 groups" in capsys.readouterr().out
    with out.open(newline="", encoding="utf-8") as file:
        part_of = {row["file"]: row["part"] for row in csv.DictReader(file)}
    assert Counter(part_of.values()) == {"train": 10, "validation": 4, "test": 6}
    assert part_of["03.png"] == part_of["19.png"]
    first = out.read_bytes()
    assert _run(str(tmp_path / "data"), "--out", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["parts"]["train"]["images"] == 12
    assert out.read_bytes() != first


@pytest.mark.parametrize("argv", [("--fractions", "a,b,c"), ("--seed", "-1"), ("--seed", "x")])
def test_arguments_that_are_none(argv: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _run("data", "--out", "x.csv", *argv)
    assert caught.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "file").touch()
    with pytest.raises(WorkshopError, match=r"^--out: .*file: "):
        _run(str(tmp_path), "--out", str(tmp_path / "file/split.csv"))


# What is committed.


@pytest.mark.parametrize("name", ["magnetic_tile", "magnetic_tile_by_tile", "neu_seg"])
def test_the_committed_lists_are_what_the_command_makes(shared_data: Path, name: str) -> None:
    dataset = open_dataset(shared_data / name.removesuffix("_by_tile"))
    numbers = None if name == "magnetic_tile" else groups(dataset, progress=False)
    listed = splits.read(COMMITTED / f"{name}.csv")
    assert listed == splits.split(dataset, seed=0, groups=numbers)
    laid = splits.lay(listed, dataset, for_training=True)
    assert laid.unused == 0
    counts = splits.count(listed, dataset)
    for class_name in dataset.class_names:
        assert counts["test"][class_name] >= 3
        assert counts["validation"][class_name] >= 2
