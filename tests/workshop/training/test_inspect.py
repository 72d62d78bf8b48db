"""Inspection: figures known beforehand, faults listed, pictures, the command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from training.cli import data as commands_data
from training.data_report.figures import DataReport
from training.data_report.inspect import inspect
from training.data_report.plots import plots
from training.data_report.text import text
from workshop.datasets import open_dataset
from workshop.errors import WorkshopError
from workshop.splits import Split

LABELS = """\
file,class_name,class_id,defect_pixels
clean.png,Free,0,0
copy.png,Free,0,0
darker.png,pit,1,16
drawn.png,Free,0,0
pits.png,pit,1,17
scratch.png,scratch,2,40
torn.png,pit,1,0
undrawn.png,pit,1,0
wide.png,pit,1,9
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with one of everything, its figures known."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    (folder / "labels.csv").write_text(LABELS)
    images = {
        name: cv2.GaussianBlur(
            np.random.default_rng(seed).integers(0, 255, (100, 80), np.uint8), (0, 0), 1.5
        )
        for seed, name in enumerate(("clean", "drawn", "pits", "scratch", "torn", "undrawn"))
    }
    images["copy"] = images["clean"]
    images["darker"] = (images["pits"] * 0.7).astype(np.uint8)
    images["wide"] = np.dstack([np.random.default_rng(9).integers(0, 255, (50, 90), np.uint8)] * 3)
    for name, image in images.items():
        cv2.imwrite(str(folder / f"images/{name}.png"), image)
    data = (folder / "images/torn.png").read_bytes()
    (folder / "images/torn.png").write_bytes(data[: len(data) // 2])
    masks = {name: np.zeros((100, 80), np.uint8) for name in images}
    masks["pits"][10:14, 10:14] = 1  # 16 px
    masks["pits"][14, 14] = 1  # its corner touches: one defect of 17 px
    masks["pits"][50, 50] = 1  # one of 1 px
    masks["darker"][10:14, 10:14] = 1
    masks["scratch"][20:60, 7] = 2
    masks["drawn"][0, 0] = 1
    masks["wide"][:3, :3] = 1  # 80x100 px, its image is 90x50
    for name, mask in masks.items():
        cv2.imwrite(str(folder / f"masks/{name}.png"), mask)
    return folder


@pytest.fixture(scope="module")
def report(faulty: Path) -> DataReport:
    splits = Split(
        ("clean.png", "pits.png", "scratch.png"), ("darker.png", "wide.png"), ("copy.png",)
    )
    return inspect(open_dataset(faulty, strict=False), splits)


def test_figures_that_were_known(report: DataReport) -> None:
    assert (report.images, report.defect_free, report.defective) == (9, 3, 6)
    assert report.imbalance == 5  # pits on five images, scratches on one
    pit, scratch = report.classes
    assert (pit.name, pit.images, pit.drawn, pit.defects) == ("pit", 5, 3, 4)
    assert pit.area_px is not None
    assert (pit.area_px.smallest, pit.area_px.median, pit.area_px.largest) == (1, 8.5, 17)
    assert pit.areas_log2 == (2, 0, 0, 0, 2)
    assert (scratch.images, scratch.drawn, scratch.defects) == (1, 1, 1)
    assert scratch.area_share is not None
    assert scratch.area_share.median == 40 / 8_000
    assert pit.per_image is not None
    assert (pit.per_image.count, pit.per_image.largest) == (3, 2)
    assert report.defects_per_image is not None
    assert (report.defects_per_image.smallest, report.defects_per_image.largest) == (1, 2)
    assert [(s.width_px, s.height_px, s.images) for s in report.sizes] == [
        (80, 100, 7),
        (90, 50, 1),
    ]
    assert report.width_px is not None
    assert (report.width_px.smallest, report.width_px.median, report.width_px.largest) == (
        80,
        80,
        90,
    )


def test_faults_are_listed_and_end_nothing(report: DataReport) -> None:
    assert report.undrawn == ("undrawn.png",)
    assert report.drawn_on_defect_free == ("drawn.png",)
    (unreadable,), (misfit,) = report.unreadable, report.mask_errors
    assert "torn.png: truncated" in unreadable
    assert "wide.png: 80x100 px, but the image wide.png is 90x50" in misfit


def test_the_same_thing_twice_is_listed_and_across_the_split(report: DataReport) -> None:
    assert report.duplicates == (("clean.png", "copy.png"),)
    assert [(p.first, p.second) for p in report.near_duplicates] == [("darker.png", "pits.png")]
    assert (report.groups, report.grouped_images) == (2, 4)
    assert set(report.across_parts) == {("clean.png", "copy.png"), ("darker.png", "pits.png")}
    assert report.parts is not None
    assert report.parts["train"] == {"images": 3, "defect_free": 1, "pit": 1, "scratch": 1}
    assert report.unused == 3


def test_a_split_that_keeps_them_together_has_none_across(faulty: Path) -> None:
    dataset = open_dataset(faulty, strict=False)
    kept = Split(("clean.png", "copy.png"), ("darker.png",), ())
    assert inspect(dataset, kept).across_parts == ()
    with pytest.raises(WorkshopError, match=r"^no\.png: in the split, but not in the data"):
        inspect(dataset, Split(("no.png",), (), ()))


def test_the_text_says_it_all(report: DataReport) -> None:
    said = text(report)
    for words in (
        "9 images, 6 defective, 3 defect-free",
        "width 80 / 80 / 90, height 50 / 100 / 100; 2 sizes",
        "imbalance: 5.0 images",
        "3 images in no part",
        "unreadable images: 1\n",
        "invalid masks: 1\n",
        "defective images without a mask: 1\n  undrawn.png",
        "sets of identical files: 1\n  clean.png = copy.png",
        "darker.png ~ pits.png (",
        "groups across the parts of the split: 2",
    ):
        assert words in said
    table = [line for line in said.splitlines() if line.startswith(("class ", "pit ", "scratch "))]
    assert len({len(line) for line in table[:3]}) == 1


def test_json_comes_back_as_the_report(report: DataReport) -> None:
    assert msgspec.json.decode(msgspec.json.encode(report), type=DataReport) == report


def test_plots_are_pictures(faulty: Path, report: DataReport, tmp_path: Path) -> None:
    paths = plots(open_dataset(faulty, strict=False), report, tmp_path / "look")
    assert [p.name for p in paths] == [
        f"{name}.png" for name in ("classes", "areas", "sizes", "samples", "near_duplicates")
    ]
    pictures = {path.stem: cv2.imread(str(path)) for path in paths}
    assert all(picture is not None and picture.std() > 5 for picture in pictures.values())
    # The masks' outlines are the only colour on grey images.
    sheet = pictures["samples"].astype(int)
    assert (sheet.max(axis=2) - sheet.min(axis=2) > 60).sum() > 20
    again = plots(open_dataset(faulty, strict=False), report, tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]


def test_a_set_with_nothing_in_it_but_sound_images(tmp_path: Path) -> None:
    data = tmp_path / "$\\frac$"  # to matplotlib a broken formula
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    cv2.imwrite(str(data / "images/a.png"), np.zeros((9, 9), np.uint8))
    dataset = open_dataset(data)
    report = inspect(dataset)
    assert (report.classes, report.imbalance, report.defects_per_image) == ((), None, None)
    assert "size: all 9x9 px" in text(report)
    assert len(plots(dataset, report, tmp_path / "look")) == 4


def _run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    commands_data.add_inspect(parser.add_subparsers(required=True))
    args = parser.parse_args(["inspect", *argv])
    return int(args.run(args))


def test_the_command(faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "split.csv"
    listed.write_text("file,part\npits.png,train\ndarker.png,test\n")
    out = tmp_path / "look"
    argv = (str(faulty), "--split", str(listed), "--out", str(out), "--json")
    assert _run(*argv) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["across_parts"] == [["darker.png", "pits.png"]]
    assert len(list(out.iterdir())) == 5
    assert _run(str(faulty)) == 0
    assert "9 images, 6 defective" in capsys.readouterr().out
    with pytest.raises(WorkshopError, match=r"^--out: .*split\.csv: "):
        _run(str(faulty), "--out", str(listed))


@pytest.mark.parametrize(
    ("name", "defective", "undrawn", "sizes"),
    [("magnetic_tile", 234, 2, 816), ("neu_seg", 900, 0, 1), ("severstal", 9, 0, 1)],
)
def test_real_data(shared_data: Path, name: str, defective: int, undrawn: int, sizes: int) -> None:
    report = inspect(open_dataset(shared_data / name))
    assert (report.defective, len(report.undrawn), len(report.sizes)) == (
        defective,
        undrawn,
        sizes,
    )
    assert report.unreadable == report.mask_errors == report.drawn_on_defect_free == ()
