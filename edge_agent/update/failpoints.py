"""Named points between the steps that must survive a crash; only a test arms them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_armed: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Do nothing, unless a test has armed the points: then whatever that test does at `name`."""
    if _armed is not None:
        _armed(name)


@contextlib.contextmanager
def armed(act: Callable[[str], None]) -> Iterator[None]:
    """Call `act` with the name of each point that is reached, in the thread that reaches it."""
    global _armed
    before, _armed = _armed, act
    try:
        yield
    finally:
        _armed = before
