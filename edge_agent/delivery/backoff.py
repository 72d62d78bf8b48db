"""Delay before the next connection attempt: exponential, with jitter; no clock of its own.

Only a connection that held for 20 s resets it, so a link that breaks at once is tried less often.
"""

from __future__ import annotations

import random

_FIRST_S, _MAX_S = 0.5, 30.0
_TAKEN_OVER_S, _MAX_TAKEN_OVER_S = 60.0, 600.0
_STABLE_S = 20.0


class Backoff:
    """Exponential backoff: 0.5 s to 30 s; 60 s to 600 s after a session takeover."""

    def __init__(self) -> None:
        self._next_s = _FIRST_S
        self._taken_over_s = _TAKEN_OVER_S
        self._connected_at_s: float | None = None

    def connected(self, now_s: float) -> None:
        """Record that the broker accepted a connection at `now_s`."""
        self._connected_at_s = now_s

    def lost(self, now_s: float, *, at_once: bool = False, taken_over: bool = False) -> float:
        """Record a lost connection; return the delay in s before the next attempt.

        Args:
            now_s: monotonic time in s.
            at_once: the agent itself ended the connection; no delay.
            taken_over: another client connected under the same client id.
        """
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
        # Jitter, so that the agents of a plant do not all reconnect in the same second.
        return wait_s * random.uniform(0.7, 1.3)  # noqa: S311  not a secret

    def stable(self, now_s: float) -> bool:
        """Return True if the current connection has held for 20 s."""
        return self._connected_at_s is not None and now_s - self._connected_at_s >= _STABLE_S
