"""The points of the crash tests: nothing by default, and again afterwards."""

from __future__ import annotations

import pytest

from edge_agent.update import failpoints


def test_a_point_does_nothing_unless_a_test_has_armed_it() -> None:
    failpoints.reach("before")
    reached: list[str] = []
    with failpoints.armed(reached.append):
        failpoints.reach("a step")
    failpoints.reach("after")
    assert reached == ["a step"]


def test_what_an_armed_point_raises_comes_out_of_the_step_and_disarms_it() -> None:
    def fails(name: str) -> None:
        raise OSError(name)

    with pytest.raises(OSError, match="a step"), failpoints.armed(fails):
        failpoints.reach("a step")
    failpoints.reach("after")
