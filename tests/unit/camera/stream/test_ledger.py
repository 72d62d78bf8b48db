"""What is missing, repeated, late or counted anew; ids that wrap; clocks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.camera import StreamCounters
from edge_agent.camera.backends.genicam.block_ids import BlockIds
from edge_agent.camera.stream.clock import ClockMap
from edge_agent.camera.stream.ledger import BlockLedger, MissingLines
from edge_agent.camera.stream.reconnect import Outage
from edge_agent.frame import Block, GapReason, LineSpan

LINES = 37
NONE = StreamCounters()
SECOND = 1_000_000_000


def _block(block_id: int | None, **changes: Any) -> Block:
    """`encoder_count`, `line_count` and the times are changes of its span."""
    camera_ns = changes.pop("camera_ns", None)
    span = {"line_count": LINES, "captured_utc_ns": 0, "captured_monotonic_ns": 0} | changes
    return Block(
        data=None,
        pixel_format="Mono8",
        width_px=8,
        span=LineSpan(first_line=0, **span),
        block_id=block_id,
        camera_ns=camera_ns,
    )


def _outage() -> Outage:
    return Outage("no_answer", "gone", 5, 7, 3)


def _all(ledger: BlockLedger, *ids: int) -> list[MissingLines]:
    return [hole for i in ids for hole in ledger.take(_block(i), NONE)[0]]


# Ids.


def test_lines_are_numbered_one_after_the_other() -> None:
    ledger = BlockLedger(first_block_id=1)
    places = [ledger.take(_block(i, line_count=n), NONE) for i, n in ((1, 10), (2, 3), (3, 40))]
    assert [holes for holes, _, _ in places] == [[], [], []]
    assert [placed.span.first_line for _, placed, _ in places] == [0, 10, 13]


def test_ids_that_are_left_out_are_a_hole() -> None:
    ledger = BlockLedger()
    (hole,) = _all(ledger, 5, 6, 9)
    assert hole.reason is GapReason.CAMERA_LOSS
    assert (hole.span.first_line, hole.span.line_count) == (2 * LINES, 2 * LINES)
    assert hole.block_count == 2
    assert hole.detail == "blocks 7 to 8 never came"
    assert ledger.take(_block(10), NONE)[1].span.first_line == 5 * LINES


def test_the_first_blocks_may_be_missing() -> None:
    (hole,) = _all(BlockLedger(first_block_id=1), 3)
    assert (hole.span.first_line, hole.span.line_count) == (0, 2 * LINES)
    assert _all(BlockLedger(first_block_id=None), 3) == []


def test_a_repeated_block_is_dropped() -> None:
    ledger = BlockLedger()
    assert _all(ledger, 1, 2) == []
    holes, placed, _ = ledger.take(_block(2), NONE)
    assert (holes, placed) == ([], None)
    assert (ledger.counts.repeated, ledger.counts.late, ledger.counts.taken) == (1, 0, 2)
    assert ledger.take(_block(3), NONE)[1].span.first_line == 2 * LINES


def test_a_late_block_was_declared_and_is_dropped_once() -> None:
    ledger = BlockLedger()
    (hole,) = _all(ledger, 1, 3)
    assert hole.span.line_count == LINES
    assert ledger.take(_block(2), NONE)[1] is None
    assert ledger.take(_block(2), NONE)[1] is None
    assert (ledger.counts.late, ledger.counts.repeated) == (1, 1)
    # The stream does not count it as lost, so that at the end nothing more is missing.
    assert ledger.tail(StreamCounters(lost_blocks=0), 0, 0) is None


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ((1000, 5 * SECOND), (1, 6 * SECOND)),  # behind, and the camera's time went on
        ((1000, None), (1, None)),  # far behind, without a time
        ((1, None), (1_000_000, None)),  # further than any loss
    ],
)
def test_a_camera_that_counts_anew_is_a_hole_of_unknown_length(
    first: tuple[int, int | None], then: tuple[int, int | None]
) -> None:
    ledger = BlockLedger()
    ledger.take(_block(first[0], camera_ns=first[1]), NONE)
    (hole,), placed, _ = ledger.take(_block(then[0], camera_ns=then[1]), NONE)
    assert (hole.span.line_count, hole.block_count) == (None, 1)
    assert "began to count anew" in hole.detail
    assert placed.span.first_line == LINES
    assert ledger.take(_block(then[0] + 1), NONE)[1].span.first_line == 2 * LINES


def test_without_ids_the_streams_counter_tells() -> None:
    ledger = BlockLedger()
    lost = (0, 0, 3, 3, 4)
    holes = [h for n in lost for h in ledger.take(_block(None), StreamCounters(lost_blocks=n))[0]]
    assert [(h.span.first_line, h.block_count) for h in holes] == [(2 * LINES, 3), (7 * LINES, 1)]


def test_what_is_lost_after_the_last_block_is_declared_at_the_end() -> None:
    ledger = BlockLedger()
    _all(ledger, 1, 3)
    hole = ledger.tail(StreamCounters(lost_blocks=4), 11, 12)
    assert hole is not None
    assert (hole.span.first_line, hole.span.line_count) == (3 * LINES, 3 * LINES)
    assert hole.block_count == 3
    assert ledger.counts.missing == 4


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(1, 64),
)
def test_every_line_is_in_one_block_or_in_one_hole(
    fates: list[tuple[bool, int]], height: int
) -> None:
    """Blocks are lost, sent again, or sent late, at random; what the camera made adds up."""
    ledger = BlockLedger(first_block_id=0)
    line, last = 0, -1
    for block_id, (arrives, behind) in enumerate(fates):
        if not arrives:
            continue
        for holes, placed, _, lines in (
            (*ledger.take(_block(block_id, line_count=height), NONE), height),
            (*ledger.take(_block(max(0, block_id - behind), line_count=height), NONE), 0),
        ):
            for hole in holes:
                assert hole.span.first_line == line
                line += hole.span.line_count or 0
            assert (placed.span.first_line if placed else None) == (line if lines else None)
            line += lines
        last = block_id
    assert line == (last + 1) * height
    assert ledger.counts.taken + ledger.counts.missing == last + 1


# Outages and the encoder.


def test_an_outage_without_an_encoder_is_of_unknown_length() -> None:
    ledger = BlockLedger(first_block_id=1)
    _all(ledger, 1, 2)
    hole = ledger.resume(_outage(), 1, _block(1, captured_monotonic_ns=4 * SECOND))
    assert (hole.span.line_count, hole.span.first_line) == (None, 2 * LINES)
    assert (hole.span.captured_utc_ns, hole.span.captured_monotonic_ns) == (5, 7)
    assert hole.detail == "no_answer: gone; away for 4.0 s, after block 2"
    assert ledger.take(_block(1), NONE)[1].span.first_line == 2 * LINES


def test_the_encoder_tells_how_many_lines_an_outage_had() -> None:
    ledger = BlockLedger(first_block_id=1, counts_per_line=4)
    ledger.take(_block(1, encoder_count=1000), NONE)
    hole = ledger.resume(_outage(), 1, _block(1, encoder_count=1000 + 4 * (LINES + 500)))
    assert hole.span.line_count == 500
    assert hole.span.encoder_count == 1000 + 4 * LINES
    assert hole.span.encoder_end == 1000 + 4 * (LINES + 500)


def test_an_encoder_that_was_reset_tells_nothing() -> None:
    ledger = BlockLedger(counts_per_line=4)
    ledger.take(_block(1, encoder_count=1000), NONE)
    assert ledger.resume(_outage(), None, _block(1, encoder_count=0)).span.line_count is None


def test_a_hole_has_the_encoders_range() -> None:
    ledger = BlockLedger(counts_per_line=2)
    ledger.take(_block(1, encoder_count=0), NONE)
    (hole,), placed, _ = ledger.take(_block(3, encoder_count=4 * LINES), NONE)
    assert (hole.span.encoder_count, hole.span.encoder_end) == (2 * LINES, 4 * LINES)
    assert placed.span.encoder_end == 6 * LINES


def test_what_the_encoder_counts_a_line_is_seen_where_nobody_says_it() -> None:
    ledger = BlockLedger()
    for i in (1, 2):
        _, placed, _ = ledger.take(_block(i, encoder_count=3 * LINES * i), NONE)
    assert placed.span.encoder_end == 3 * LINES * 3
    (hole,), _, _ = ledger.take(_block(4, encoder_count=3 * LINES * 4), NONE)
    assert (hole.span.encoder_count, hole.span.encoder_end) == (3 * LINES * 3, 3 * LINES * 4)


@pytest.mark.parametrize(
    ("advance", "fits"),
    [(4 * LINES, True), (4 * LINES + 2, True), (4 * LINES + 12, False), (2 * LINES, False)],
)
def test_a_line_rate_that_does_not_fit_the_encoder_is_told(advance: int, fits: bool) -> None:
    ledger = BlockLedger(counts_per_line=4)
    ledger.take(_block(1, encoder_count=100), NONE)
    misfit = ledger.take(_block(2, encoder_count=100 + advance), NONE)[2]
    assert (misfit == "") is fits
    if not fits:
        assert f"counted {advance} over {LINES} lines, {4 * LINES} are expected" in misfit


def test_a_strip_that_turns_back_does_not_fit_and_a_wrap_does() -> None:
    ledger = BlockLedger(counts_per_line=4)
    ledger.take(_block(1, encoder_count=2**32 - 2 * LINES), NONE)
    assert ledger.take(_block(2, encoder_count=2 * LINES), NONE)[2] == ""
    assert "-148" in ledger.take(_block(3, encoder_count=2 * LINES - 148), NONE)[2]


# Ids that wrap round.


@given(st.lists(st.integers(1, 4000), max_size=60), st.integers(1, 65535))
def test_16_bits_unwrap(steps: list[int], start: int) -> None:
    ids, true = BlockIds(bits=16, first=1), start
    assert ids.unwrap(start) == start
    for step in steps:
        true += step
        assert ids.unwrap((true - 1) % 65535 + 1) == true


def test_a_late_block_keeps_its_number_over_the_wrap() -> None:
    ids = BlockIds(bits=16, first=1)
    assert [ids.unwrap(i) for i in (65534, 65535, 1, 65535, 2)] == [
        65534,
        65535,
        65536,
        65535,
        65537,
    ]


@pytest.mark.parametrize("block_id", [0, 65536, -1])
def test_an_id_that_cannot_be_is_refused(block_id: int) -> None:
    with pytest.raises(ValueError, match=f"block id {block_id}: not within 1 to 65535"):
        BlockIds(bits=16, first=1).unwrap(block_id)


# Clocks.

NOW = 1_790_000_000 * SECOND


def test_without_a_camera_clock_it_is_the_hosts() -> None:
    assert ClockMap().utc_ns(None, "free", NOW) == NOW


@pytest.mark.parametrize("ahead_s", [0, 37])
def test_ptp_is_believed_in_utc_and_in_tai(ahead_s: int) -> None:
    assert ClockMap().utc_ns(NOW + ahead_s * SECOND, "ptp", NOW + 1_000_000) == NOW


def test_ptp_that_was_never_set_is_a_free_clock() -> None:
    assert ClockMap().utc_ns(12345, "ptp", NOW) == NOW


@given(st.lists(st.integers(0, 40_000_000), min_size=2, max_size=50))
def test_a_free_clock_is_laid_on_ours_by_the_fastest_block(delays: list[int]) -> None:
    clock = ClockMap()
    taken = [i * 10_000_000 for i in range(len(delays))]
    found = [
        clock.utc_ns(t, "free", NOW + t + delay) for t, delay in zip(taken, delays, strict=True)
    ]
    for i, utc in enumerate(found):
        assert utc == NOW + taken[i] + min(delays[: i + 1])


def test_a_drift_is_followed() -> None:
    clock, utc = ClockMap(), 0
    for second in range(600):  # the camera's clock runs 100 ppm slow
        true = NOW + second * SECOND
        utc = clock.utc_ns(second * SECOND * 9999 // 10000, "free", true)
    assert abs(utc - true) < 0.0001 * 70 * SECOND
