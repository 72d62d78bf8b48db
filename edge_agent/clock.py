"""The two clocks of the agent as one value, so that a test moves both of them in one place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`utc_ns` dates things and may jump; `monotonic_ns` measures, and never does."""

    utc_ns: Callable[[], int] = time.time_ns
    monotonic_ns: Callable[[], int] = time.monotonic_ns

    def monotonic_s(self) -> float:
        return self.monotonic_ns() / 1e9


SYSTEM = Clock()
