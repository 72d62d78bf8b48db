"""Waits between tries, with a clock of the test's own."""

from __future__ import annotations

import itertools

import pytest

from edge_agent.delivery.backoff import Backoff


def test_waits_double_up_to_half_a_minute_and_are_never_the_same_twice() -> None:
    backoff = Backoff()
    waits = [backoff.lost(float(at)) for at in range(12)]
    for number, wait_s in enumerate(waits):
        nominal = min(0.5 * 2**number, 30.0)
        assert 0.7 * nominal <= wait_s <= 1.3 * nominal
    assert len(set(waits)) == len(waits)


@pytest.mark.parametrize(("held_s", "begins_anew"), [(0.0, False), (19.9, False), (20.0, True)])
def test_only_a_connection_that_held_begins_them_anew(held_s: float, begins_anew: bool) -> None:
    """A broker that accepts and at once throws out is not to be hammered."""
    backoff = Backoff()
    for at in range(8):
        backoff.lost(float(at))
    backoff.connected(100.0)
    assert backoff.stable(100.0 + held_s) is begins_anew
    wait_s = backoff.lost(100.0 + held_s)
    assert (wait_s < 1.0) is begins_anew


def test_flapping_is_tried_less_and_less_often() -> None:
    backoff, now_s, tries = Backoff(), 0.0, 0
    while now_s < 600.0:
        backoff.connected(now_s)
        now_s += 0.1
        now_s += backoff.lost(now_s)
        tries += 1
    assert tries < 40


def test_our_own_wish_waits_not_at_all_and_costs_nothing() -> None:
    backoff = Backoff()
    assert [backoff.lost(1.0, at_once=True) for _ in range(5)] == [0.0] * 5
    assert backoff.lost(2.0) < 1.0


def test_whoever_took_our_name_is_left_alone_for_minutes() -> None:
    backoff = Backoff()
    waits = [backoff.lost(float(at), taken_over=True) for at in range(6)]
    for wait_s, nominal in zip(waits, (60, 120, 240, 480, 600, 600), strict=True):
        assert 0.7 * nominal <= wait_s <= 1.3 * nominal
    backoff.connected(0.0)
    assert backoff.lost(30.0, taken_over=True) < 80.0
    assert all(a != b for a, b in itertools.pairwise(waits))
