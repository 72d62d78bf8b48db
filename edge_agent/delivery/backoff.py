"""How long to wait before the next try to connect: longer each time, never twice the same.

It begins anew only after a connection that held: one that breaks at once, again and again, is
tried less and less often. No clock of its own.
"""

from __future__ import annotations

import random

_FIRST_S, _MAX_S = 0.5, 30.0
_TAKEN_OVER_S, _MAX_TAKEN_OVER_S = 60.0, 600.0
_STABLE_S = 20.0


class Backoff:
    def __init__(self) -> None:
        self._next_s = _FIRST_S
        self._taken_over_s = _TAKEN_OVER_S
        self._connected_at_s: float | None = None

    def connected(self, now_s: float) -> None:
        self._connected_at_s = now_s

    def lost(self, now_s: float, *, at_once: bool = False, taken_over: bool = False) -> float:
        """Seconds to wait. `at_once`: it was our own wish. `taken_over`: another took our name."""
        held = self.stable(now_s)
        self._connected_at_s = None
        if held:
            self._next_s, self._taken_over_s = _FIRST_S, _TAKEN_OVER_S
        if at_once:
            return 0.0
        if taken_over:
            wait_s = self._taken_over_s
            self._taken_over_s = min(2 * wait_s, _MAX_TAKEN_OVER_S)
        else:
            wait_s = self._next_s
            self._next_s = min(2 * wait_s, _MAX_S)
        # Jitter, so that a plant's agents do not all come back in the same second.
        return wait_s * random.uniform(0.7, 1.3)  # noqa: S311  not a secret

    def stable(self, now_s: float) -> bool:
        return self._connected_at_s is not None and now_s - self._connected_at_s >= _STABLE_S
