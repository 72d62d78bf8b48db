"""Blocks of any height to frames of one height."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.camera.stream.frame_cutter import FrameCutter
from edge_agent.camera.stream.ledger import MissingLines
from edge_agent.frame import Block, Frame, Gap, GapReason, Image, LineSpan

WIDTH = 3
SECOND = 1_000_000_000


def _lines(first: int, count: int) -> Image:
    """Each line holds its own number, in two bytes, so that none can be taken for another."""
    numbers = np.arange(first, first + count)
    columns = (numbers & 255, numbers >> 8, np.full(count, 7))
    return np.stack(columns, axis=1).astype(np.uint8)


def _block(first: int, count: int, image: Image | None = None) -> Block:
    return Block(
        data=_lines(first, count) if image is None else image,
        pixel_format="RGB8",
        width_px=WIDTH,
        span=LineSpan(
            first_line=first,
            line_count=count,
            captured_utc_ns=1000 + first,
            captured_monotonic_ns=first,
            encoder_count=10 * first,
            encoder_end=10 * (first + count),
        ),
        block_id=None,
        source=f"at {first}",
    )


def _hole(
    first: int,
    count: int | None,
    reason: GapReason = GapReason.CAMERA_LOSS,
    at_ns: int = 0,
    blocks: int = 1,
) -> MissingLines:
    return MissingLines(
        reason=reason,
        detail="why",
        span=LineSpan(
            first_line=first,
            line_count=count,
            captured_utc_ns=0,
            captured_monotonic_ns=at_ns,
            encoder_count=10 * first,
            encoder_end=None if count is None else 10 * (first + count),
        ),
        block_count=blocks,
    )


def _take(cutter: FrameCutter, item: Block | MissingLines) -> list[Frame | Gap]:
    if isinstance(item, MissingLines):
        return cutter.skip(item)
    assert item.data is not None
    return cutter.take(item, item.data)


def _run(cutter: FrameCutter, *items: Block | MissingLines) -> list[Frame | Gap]:
    return [one for item in items for one in _take(cutter, item)] + cutter.flush()


def _spans(made: list[Frame | Gap]) -> list[tuple[str, int, int | None]]:
    """Kind, first new line, new lines."""
    return [
        ("frame", one.first_line + one.overlap_lines, one.new_lines)
        if isinstance(one, Frame)
        else (one.reason.value, one.first_line, one.line_count)
        for one in made
    ]


@given(
    height=st.integers(1, 40),
    overlap=st.integers(0, 39),
    pieces=st.lists(
        st.tuples(
            st.sampled_from(["lines", "lines", "lines", "hole", "unknown"]), st.integers(1, 90)
        ),
        max_size=25,
    ),
)
@settings(deadline=None, max_examples=300)
def test_every_line_is_new_in_one_frame_or_in_one_gap(
    height: int, overlap: int, pieces: list[tuple[str, int]]
) -> None:
    overlap %= height
    items: list[Block | MissingLines] = []
    line = 0
    for kind, count in pieces:
        if kind == "lines":
            items.append(_block(line, count))
        else:
            items.append(_hole(line, count if kind == "hole" else None))
        line += 0 if kind == "unknown" else count
    made = _run(FrameCutter(height, overlap), *items)
    at, frame_id = 0, 0
    for one in made:
        assert one.frame_id == frame_id
        if isinstance(one, Gap):
            assert one.first_line == at
            at += one.line_count or 0
            frame_id += one.frame_count
            continue
        frame_id += 1
        assert one.first_line + one.overlap_lines == at
        assert one.new_lines > 0
        assert one.line_count == height
        np.testing.assert_array_equal(one.image, _lines(one.first_line, height))
        assert one.image.flags.c_contiguous
        assert one.span.encoder_count == 10 * one.first_line
        assert one.span.encoder_end == 10 * (one.first_line + height)
        at += one.new_lines
    assert at == line


@given(
    height=st.integers(1, 50),
    overlap=st.integers(0, 49),
    cuts=st.lists(st.integers(1, 70), min_size=1, max_size=30),
)
@settings(deadline=None)
def test_how_the_camera_cuts_makes_no_difference(
    height: int, overlap: int, cuts: list[int]
) -> None:
    overlap %= height
    total = sum(cuts)
    ends = np.cumsum(cuts).tolist()
    pieces = [_block(end - count, count) for end, count in zip(ends, cuts, strict=True)]
    one = _run(FrameCutter(height, overlap), *pieces)
    other = _run(FrameCutter(height, overlap), _block(0, total))
    assert _spans(one) == _spans(other)
    for a, b in zip(one, other, strict=True):
        assert a.frame_id == b.frame_id
        if isinstance(a, Frame) and isinstance(b, Frame):
            assert a.image.tobytes() == b.image.tobytes()


def test_without_a_height_each_block_is_a_frame() -> None:
    made = _run(FrameCutter(), _block(0, 5), _block(5, 7), _hole(12, 21, blocks=3), _block(33, 2))
    assert _spans(made) == [
        ("frame", 0, 5),
        ("frame", 5, 7),
        ("camera_loss", 12, 21),
        ("frame", 33, 2),
    ]
    assert [one.frame_id for one in made] == [0, 1, 2, 5]
    assert [one.frame_count for one in made if isinstance(one, Gap)] == [3]


def test_a_block_of_the_frames_height_is_not_copied() -> None:
    block = _block(0, 30)
    made = _take(FrameCutter(10), block)
    assert [np.shares_memory(f.image, block.data) for f in made if isinstance(f, Frame)] == [
        True,
        True,
        True,
    ]


def test_frames_begin_with_the_end_of_the_one_before() -> None:
    made = _run(FrameCutter(10, 4), *(_block(i, 2) for i in range(0, 22, 2)))
    assert [(f.first_line, f.overlap_lines) for f in made if isinstance(f, Frame)] == [
        (0, 0),
        (6, 4),
        (12, 4),
    ]


def test_the_last_frame_of_a_run_reaches_back() -> None:
    made = _run(FrameCutter(10), _block(0, 7), _block(7, 7), _hole(14, 5), _block(19, 11))
    assert _spans(made) == [
        ("frame", 0, 10),
        ("frame", 10, 4),
        ("camera_loss", 14, 5),
        ("frame", 19, 10),
        ("frame", 29, 1),
    ]
    last = made[-1]
    assert isinstance(last, Frame)
    assert (last.first_line, last.overlap_lines) == (20, 9)


def test_a_run_shorter_than_a_frame_is_a_gap() -> None:
    made = _run(FrameCutter(10), _hole(0, 3), _block(3, 9), _hole(12, 4))
    assert _spans(made) == [("camera_loss", 0, 3), ("fragment", 3, 9), ("camera_loss", 12, 4)]
    gap = made[1]
    assert isinstance(gap, Gap)
    assert (gap.span.encoder_count, gap.span.encoder_end) == (30, 120)
    assert gap.detail == "9 lines on their own; a frame has 10"


def test_another_width_ends_the_run() -> None:
    wide = _block(15, 10, np.zeros((10, 9), np.uint8))
    made = _run(FrameCutter(10), _block(0, 15), wide)
    assert _spans(made) == [("frame", 0, 10), ("frame", 10, 5), ("frame", 15, 10)]


def test_a_frame_is_dated_by_the_blocks_of_its_ends() -> None:
    made = _run(FrameCutter(10), *(_block(i, 4) for i in range(0, 20, 4)))
    one, other = (f for f in made if isinstance(f, Frame))
    assert [f.source for f in (one, other)] == ["at 0", "at 8"]
    assert [f.span.captured_utc_ns for f in (one, other)] == [1000, 1008]
    assert [f.span.captured_monotonic_ns for f in (one, other)] == [8, 16]


def test_more_of_the_same_trouble_is_one_gap() -> None:
    holes = [_hole(10 * i, 10, GapReason.BLACK, at_ns=1 + i) for i in range(5)]
    made = _run(FrameCutter(), *holes, _block(50, 10), _hole(60, 10, GapReason.BLACK))
    assert _spans(made) == [("black", 0, 50), ("frame", 50, 10), ("black", 60, 10)]
    gap = made[0]
    assert isinstance(gap, Gap)
    assert (gap.frame_count, gap.detail, gap.span.encoder_end) == (5, "why; and 4 times more", 500)


def test_but_not_for_longer_than_a_second() -> None:
    holes = [_hole(10 * i, 10, GapReason.BLACK, at_ns=1 + i * SECOND // 2) for i in range(5)]
    spans = _spans(_run(FrameCutter(), *holes))
    assert spans == [("black", 0, 20), ("black", 20, 20), ("black", 40, 10)]


def test_a_bad_file_is_a_gap_of_its_own() -> None:
    holes = [_hole(10 * i, 10, GapReason.BAD_FRAME) for i in range(3)]
    assert len(_run(FrameCutter(), *holes)) == 3


def test_a_gap_does_not_wait_for_a_strip_that_stands_still() -> None:
    cutter = FrameCutter()
    assert cutter.skip(_hole(0, 10, at_ns=5)) == []
    assert cutter.settle(5 + SECOND - 1) == []
    assert len(cutter.settle(5 + SECOND)) == 1
    assert cutter.flush() == []


def test_an_overlap_as_high_as_the_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="10 is not less than the frame's 10 lines"):
        FrameCutter(10, 10)
