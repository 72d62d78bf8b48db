"""Submissions: written, read back, and what the errors say."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.inspection import rle
from training.evaluate import submission
from workshop.datasets import Planes, open_dataset
from workshop.errors import WorkshopError

PLANES = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)))


@given(planes=st.lists(PLANES, max_size=4))
@settings(deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, planes: list[Planes]
) -> None:
    path = tmp_path_factory.mktemp("submissions") / "submission.csv"
    named = {f"a_{i}.jpg": one for i, one in enumerate(planes)}
    assert submission.write(path, named.items()) == sum(one.shape[2] for one in planes)
    found = submission.read(path)
    assert list(found) == list(named)
    for name, one in named.items():
        assert list(found[name]) == list(range(1, one.shape[2] + 1))
        for class_id, text in found[name].items():
            plane = one[:, :, class_id - 1]
            assert (text == "") == (not plane.any())
            np.testing.assert_array_equal(rle.decode(text, plane.shape), plane)


def test_the_labels_of_the_competition_submitted(shared_data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(shared_data / "severstal")
    path = tmp_path / "new/submission.csv"
    named = ((s.name, dataset.planes(i)) for i, s in enumerate(dataset.samples))
    assert submission.write(path, named) == 4 * 17
    assert path.read_text().splitlines()[0] == "ImageId_ClassId,EncodedPixels"
    found = submission.read(path)
    with (shared_data / "severstal/train.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert found[row["ImageId"]].pop(int(row["ClassId"])) == row["EncodedPixels"]
    assert not any(text for of_image in found.values() for text in of_image.values())


def test_a_failed_writing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("before")
    one = np.ones((2, 2, 1), np.bool_)

    def broken() -> Iterator[tuple[str, Planes]]:
        yield "a.jpg", one
        raise WorkshopError("b.jpg: torn")

    with pytest.raises(WorkshopError, match=r"b\.jpg: torn"):
        submission.write(path, broken())
    with pytest.raises(WorkshopError, match=r"a\.jpg occurs twice"):
        submission.write(path, [("a.jpg", one), ("a.jpg", one)])
    with pytest.raises(WorkshopError, match="not a plain file name"):
        submission.write(path, [("x/a.jpg", one)])
    assert [p.name for p in tmp_path.iterdir()] == ["submission.csv"]
    assert path.read_text() == "before"
    with pytest.raises(WorkshopError, match="give a writable file"):
        submission.write(path / "below.csv", [])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("ImageId,EncodedPixels\n", "no column ImageId_ClassId"),
        ("ImageId_ClassId,EncodedPixels\na.jpg_0,\n", "use classes from 1"),
        ("ImageId_ClassId,EncodedPixels\na.jpg_1,\na.jpg_1,1 1\n", "line 3: a.jpg_1"),
        ("ImageId_ClassId,EncodedPixels\na.jpg,\n", "class id 'a.jpg' is not a number"),
        ("ImageId_ClassId,EncodedPixels\n_1,\n", "'' is not a plain file name"),
    ],
)
def test_faults_of_a_submission(tmp_path: Path, rows: str, words: str) -> None:
    path = tmp_path / "submission.csv"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(WorkshopError) as caught:
        submission.read(path)
    assert words in str(caught.value)
