"""Where lines lie and when they were captured."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.frame import Frame, LineSpan

SPAN = LineSpan(
    first_line=100,
    line_count=40,
    captured_utc_ns=5,
    captured_monotonic_ns=7,
    encoder_count=1000,
    encoder_end=1080,
)


def test_the_encoder_is_spread_evenly_between_both_ends() -> None:
    assert [SPAN.encoder_at(line) for line in (100, 110, 139, 140)] == [1000, 1020, 1078, 1080]


def test_without_an_end_only_the_first_line_has_a_count() -> None:
    span = replace(SPAN, encoder_end=None)
    assert [span.encoder_at(line) for line in (100, 110, 140)] == [1000, None, None]


def test_without_a_beginning_only_the_end_has_a_count() -> None:
    span = replace(SPAN, encoder_count=None)
    assert [span.encoder_at(line) for line in (100, 110, 140)] == [None, None, 1080]


def test_within_an_unknown_length_nothing_is_interpolated() -> None:
    span = replace(SPAN, line_count=None)
    assert span.end_line == 100
    assert [span.encoder_at(line) for line in (100, 110)] == [1000, None]


def test_a_part_has_its_lines_and_the_times_of_the_whole() -> None:
    wanted = replace(SPAN, first_line=110, line_count=20, encoder_count=1020, encoder_end=1060)
    assert SPAN.part(110, 130) == wanted
    assert SPAN.part(100, 140) == SPAN


@given(st.integers(0, 40), st.integers(0, 40))
def test_parts_join_without_a_seam(one: int, other: int) -> None:
    low, high = sorted((100 + one, 100 + other))
    parts = SPAN.part(100, low), SPAN.part(low, high), SPAN.part(high, 140)
    for before, after in itertools.pairwise(parts):
        assert before.end_line == after.first_line
        assert before.encoder_end == after.encoder_count


def test_a_frames_new_lines_are_those_behind_the_repeated_ones() -> None:
    frame = Frame(np.zeros((40, 3), np.uint8), 0, SPAN, overlap_lines=10)
    assert (frame.first_line, frame.line_count, frame.new_lines) == (100, 40, 30)
    assert frame.new_span == SPAN.part(110, 140)


@pytest.mark.parametrize("line_count", [39, None])
def test_a_frame_has_as_many_lines_as_its_image(line_count: int | None) -> None:
    with pytest.raises(ValueError, match=f"40 lines of image, span: {line_count}"):
        Frame(np.zeros((40, 3), np.uint8), 0, replace(SPAN, line_count=line_count))
