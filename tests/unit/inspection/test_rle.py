"""Masks as text, as Kaggle's Severstal competition writes them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edge_agent.inspection import rle

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(mask=hnp.arrays(np.bool_, SHAPES))
@settings(deadline=None)
def test_what_is_encoded_is_decoded(mask: NDArray[np.bool_]) -> None:
    again = rle.decode(rle.encode(mask), (mask.shape[0], mask.shape[1]))
    assert again.dtype == np.bool_
    np.testing.assert_array_equal(again, mask)


@given(mask=hnp.arrays(np.bool_, SHAPES))
@settings(deadline=None)
def test_runs_are_the_longest_possible(mask: NDArray[np.bool_]) -> None:
    numbers = [int(word) for word in rle.encode(mask).split()]
    starts, lengths = numbers[::2], numbers[1::2]
    assert sum(lengths) == mask.sum()
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    # A start that equals the end before it would be the same run.
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        # "1 3" is pixels 1, 2, 3; pixels are numbered from top to bottom, then left to right.
        ([[1, 0], [1, 0], [1, 0]], "1 3"),
        ([[1, 1, 1], [0, 0, 0]], "1 1 3 1 5 1"),
        ([[1, 0, 1], [1, 1, 0]], "1 2 4 2"),
        ([[0, 0], [0, 1]], "4 1"),
        ([[1, 1], [1, 1]], "1 4"),
        ([[0, 0], [0, 0]], ""),
        ([[1]], "1 1"),
    ],
)
def test_values_of_the_reference(mask: list[list[int]], text: str) -> None:
    expected = np.array(mask, np.bool_)
    assert rle.encode(expected) == text
    np.testing.assert_array_equal(rle.decode(text, (len(mask), len(mask[0]))), expected)


def test_a_run_goes_on_in_the_next_column() -> None:
    mask = rle.decode("256 2", (256, 1600))
    assert mask[255, 0]
    assert mask[0, 1]
    assert mask.sum() == 2


def test_runs_that_touch_are_one_mask() -> None:
    np.testing.assert_array_equal(rle.decode("1 2 3 2", (2, 3)), rle.decode("1 4", (2, 3)))


def test_a_mask_without_pixels() -> None:
    empty = np.zeros((0, 5), np.bool_)
    assert rle.encode(empty) == ""
    assert rle.decode("", (0, 5)).shape == (0, 5)


def test_a_cut_of_a_larger_mask_is_encoded_by_what_it_shows() -> None:
    large = np.zeros((6, 8), np.bool_)
    large[1:4, 2:5] = True
    cut = large[1:3, 2:4]  # neither contiguous in lines nor in columns
    assert rle.encode(cut) == "1 4"


@given(
    box=hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    margins=st.tuples(*[st.integers(0, 3)] * 4),
)
@settings(deadline=None)
def test_a_box_is_encoded_as_the_mask_it_lies_in(
    box: NDArray[np.bool_], margins: tuple[int, int, int, int]
) -> None:
    above, below, left, right = margins
    whole = np.pad(box, ((above, below), (left, right)))
    assert rle.encode(box, (above, left), whole.shape[0]) == rle.encode(whole)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 x", "not whole numbers"),
        ("1.0 2", "not whole numbers"),
        (f"1 {10**30}", "not whole numbers"),
        ("1_0 2", "not whole numbers"),
        ("\N{FULLWIDTH DIGIT ONE} 2", "not whole numbers"),
        ("+1 2", "not whole numbers"),
        ("1 2-3", "not whole numbers"),
        ("1,2", "not whole numbers separated by spaces: '1,2'"),
        ("1 2 3", "3 numbers, but runs come in pairs"),
        ("0 1", "starts count from 1"),
        ("-3 1", "starts count from 1"),
        ("1 0", "lengths are at least 1"),
        ("1 -2", "lengths are at least 1"),
        ("6 2", "ends after the last of 6 pixels"),
        ("7 1", "ends after the last of 6 pixels"),
        ("1 7", "ends after the last of 6 pixels"),
        (f"{2**63 - 1} {2**63 - 1}", "ends after the last of 6 pixels"),
        (f"{-(2**63)} 1", "ends after the last of 6 pixels"),
        ("1 3 3 1", "overlap or are not in order"),
        ("5 1 1 1", "overlap or are not in order"),
        ("1 2 1 2", "overlap or are not in order"),
        ("2 1 0 1", "overlap or are not in order"),
    ],
)
def test_what_does_not_fit_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^RLE: ") as caught:
        rle.decode(text, (2, 3))
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@given(text=st.text(alphabet="0123456789 -x\n", max_size=30), shape=SHAPES)
@settings(deadline=None)
def test_any_text_is_a_mask_or_a_value_error(text: str, shape: tuple[int, int]) -> None:
    try:
        mask = rle.decode(text, shape)
    except ValueError as error:
        assert str(error).startswith("RLE: ")
        return
    assert mask.shape == shape
    assert mask.sum() == sum(int(word) for word in text.split()[1::2])


def _runs_one_by_one(text: str, lines: int, pixels: int) -> list[list[bool]]:
    """The competition's definition, word for word."""
    words = text.split()
    flat = [False] * (lines * pixels)
    for start, length in zip(words[::2], words[1::2], strict=True):
        for at in range(int(start), int(start) + int(length)):
            flat[at - 1] = True
    return [[flat[x * lines + y] for x in range(pixels)] for y in range(lines)]


@given(shape=SHAPES, data=st.data())
@settings(deadline=None)
def test_decoding_is_what_the_definition_says(shape: tuple[int, int], data: st.DataObject) -> None:
    # Cuts in ascending order, taken in pairs: runs that may touch, which encode never writes.
    size = shape[0] * shape[1]
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=20)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    text = " ".join(f"{a + 1} {b - a}" for a, b in pairs if b > a)
    assert rle.decode(text, shape).tolist() == _runs_one_by_one(text, *shape)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_no_text_is_an_empty_mask(text: str) -> None:
    assert not rle.decode(text, (4, 3)).any()


def test_masks_of_the_competition_come_back_as_they_were(shared_data: Path) -> None:
    table = shared_data / "severstal" / "train.csv"
    if not table.is_file():
        pytest.skip("the Severstal images are not beside this repository")
    with table.open(newline="", encoding="utf-8") as file:
        texts = [value for row in csv.DictReader(file) for value in row.values()]
    masks = [text for text in texts if text and len(text.split()) > 1]
    assert masks
    for text in masks:
        assert rle.encode(rle.decode(text, (256, 1600))) == text
