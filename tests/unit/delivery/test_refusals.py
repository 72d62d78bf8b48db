"""What becomes of a message that the broker refuses, code by code."""

from __future__ import annotations

import pytest

from edge_agent.delivery.in_flight import MAX_TRIES, RefusalCounter


@pytest.mark.parametrize("code", [0x87, 0x90, 0x95, 0x99])
def test_what_will_never_be_taken_is_set_aside_at_once(code: int) -> None:
    assert RefusalCounter().refused(1, code)


@pytest.mark.parametrize("code", [0x80, 0x83, 0x91])
def test_what_may_be_the_brokers_mood_is_tried_a_few_times(code: int) -> None:
    refusals = RefusalCounter()
    assert [refusals.refused(1, code) for _ in range(MAX_TRIES)] == [False] * (MAX_TRIES - 1) + [
        True
    ]


def test_a_quota_is_waited_for_however_long() -> None:
    refusals = RefusalCounter()
    assert not any(refusals.refused(1, 0x97) for _ in range(1000))


def test_what_was_taken_in_between_is_forgotten() -> None:
    refusals = RefusalCounter()
    for _ in range(MAX_TRIES - 1):
        assert not refusals.refused(1, 0x80)
    refusals.sent(1)
    assert not refusals.refused(1, 0x80)


@pytest.mark.parametrize(("code", "ends"), [(0x95, 3), (0x82, 3), (None, MAX_TRIES), (0x8B, 8)])
def test_a_message_at_which_the_broker_hangs_up_is_found_and_set_aside(
    code: int | None, ends: int
) -> None:
    """A broker may close the connection in place of a refusal, mosquitto for one."""
    refusals = RefusalCounter()
    assert not refusals.ended([5, 6, 7], code)
    assert not refusals.careful
    assert not refusals.ended([5, 6, 7], code)
    assert refusals.careful, "now one by one"
    for _ in range(ends - 3):
        assert not refusals.ended([5], code)
    assert refusals.ended([5], code)


def test_lost_connections_at_different_messages_blame_none() -> None:
    refusals = RefusalCounter()
    assert not any(refusals.ended([n], 0x95) for n in range(1, 50))
    assert not refusals.ended([], 0x95)
