"""Named points between steps that must survive a crash; only tests arm them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_armed: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Call the armed test hook with `name`; do nothing if no test has armed one."""
    if _armed is not None:
        _armed(name)


@contextlib.contextmanager
def armed(act: Callable[[str], None]) -> Iterator[None]:
    """Call `act` with the name of each point reached, in the thread that reaches it."""
    global _armed  # noqa: PLW0603 - one hook a process, set by tests alone
    before, _armed = _armed, act
    try:
        yield
    finally:
        _armed = before
