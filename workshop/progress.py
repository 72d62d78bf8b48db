"""Progress of a command on standard error: a bar on a terminal, otherwise one line a step.

In the log of a build or a service a bar would fill a thousand lines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

EVERY_S = 30.0
"""Interval between the lines of a long loop without a terminal."""

T = TypeVar("T")


class Progress(Protocol):
    """Display of the progress of one loop."""

    def update(self, count: int = 1) -> None:
        """Count `count` more items as done."""

    def step(self, name: str) -> None:
        """Count the step `name` as done; without a terminal print a line for it."""

    def note(self, text: str) -> None:
        """Show the current activity; on a terminal only."""


def on_terminal() -> bool:
    """Return True if standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def counted(
    total: int, what: str, unit: str, *, kept: bool = True, shown: bool = True, done: int = 0
) -> Iterator[Progress]:
    """Yield the progress over `total` of `unit`, of which `done` are done already.

    With `kept` it is a step of its own and its last state stays visible; otherwise it is part of a
    step.
    """
    if not shown:
        yield _Silent()
        return
    made = _Bar(total, what, unit, kept, done) if on_terminal() else _Lines(total, what, unit, done)
    try:
        yield made
    finally:
        made.close(kept=kept)


def each(
    items: Iterable[T],
    what: str,
    unit: str,
    *,
    total: int,
    kept: bool = True,
    shown: bool = True,
) -> Iterator[T]:
    """Yield the items; each counts as done when the next one is requested."""
    with counted(total, what, unit, kept=kept, shown=shown) as progress:
        for item in items:
            yield item
            progress.update()


def say(text: str) -> None:
    """Print a line on standard error, above the bars if there are any."""
    if on_terminal():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


class _Silent:
    def update(self, count: int = 1) -> None: ...

    def step(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


class _Bar:
    def __init__(self, total: int, what: str, unit: str, kept: bool, done: int) -> None:
        from tqdm import tqdm  # imported here: not installed where no bar is shown

        self._bar: Any = tqdm(
            total=total, initial=done, desc=what, unit=unit, leave=kept, file=sys.stderr
        )

    def update(self, count: int = 1) -> None:
        self._bar.update(count)

    def step(self, name: str) -> None:
        self._bar.set_postfix_str(name)
        self._bar.update()

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text)

    def close(self, *, kept: bool) -> None:  # noqa: ARG002 - as the bar
        self._bar.close()


class _Lines:
    def __init__(self, total: int, what: str, unit: str, done: int) -> None:
        self._total, self._what, self._unit = total, what, unit
        self._done = done
        self._told, self._at = done, time.monotonic()

    def update(self, count: int = 1) -> None:
        self._done += count
        if time.monotonic() - self._at >= EVERY_S:
            self._tell()

    def step(self, name: str) -> None:
        self._done += 1
        self._tell(f": {name}")

    def note(self, text: str) -> None: ...

    def close(self, *, kept: bool) -> None:
        if kept and self._done != self._told:
            self._tell()

    def _tell(self, more: str = "") -> None:
        unit = self._unit if self._total == 1 else f"{self._unit}s"
        say(f"{self._what}: {self._done} of {self._total} {unit}{more}")
        self._told, self._at = self._done, time.monotonic()
