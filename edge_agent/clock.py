"""Clocks of the agent in one value, so that a test can set both in one place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Pair of clocks: `utc_ns` is for timestamps and may jump, `monotonic_ns` is for durations."""

    utc_ns: Callable[[], int] = time.time_ns
    monotonic_ns: Callable[[], int] = time.monotonic_ns

    def monotonic_s(self) -> float:
        """Return the monotonic time in seconds."""
        return self.monotonic_ns() / 1e9


SYSTEM = Clock()
