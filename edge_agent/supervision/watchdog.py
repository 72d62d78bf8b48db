"""Watchdog of the stages: detects a stage that no longer advances, and acts on it.

A stage sets a mark in each round, with work or without. It is stuck if its mark is older than
`stall_s`, half of WatchdogSec.
"""

# When a stage gets stuck, the stacks of all threads go to the journal, once. A stuck publisher is
# restarted inside the process, as often as needed: the line runs without it. For any other stage
# the keepalive to systemd is withheld until the stage advances, and for no other reason; systemd
# then kills and restarts the agent. The keepalive is sent every quarter of WatchdogSec, so the
# stacks are in the journal at least a quarter of WatchdogSec before systemd acts.

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

PUBLISHER = "publisher"
_ALONE_S = 30.0
"""WatchdogSec without systemd: stacks and status are useful there too."""


class Watchdog:
    """Watchdog for one thread; `say` sends the keepalive, `dump` writes the stacks."""

    def __init__(
        self,
        watchdog_s: float | None,
        *,
        say: Callable[[], None],
        dump: Callable[[], None],
        restart_publisher: Callable[[], None],
    ) -> None:
        self._say, self._dump, self._restart = say, dump, restart_publisher
        self._word_every_s = (watchdog_s or _ALONE_S) / 4
        self.stall_s = (watchdog_s or _ALONE_S) / 2
        self._next_word_s = 0.0
        self._restarted_s: float | None = None
        self.publisher_restarts = 0
        self.stuck: tuple[str, ...] = ()
        """Stages that were stuck at the last call of `look`."""

    def look(self, marks_s: Mapping[str, float], now_s: float) -> bool:
        """Check the marks and act on them; marks and `now_s` are monotonic, in seconds.

        Returns True if the set of stuck stages has changed.
        """
        ages_s = {stage: now_s - mark_s for stage, mark_s in marks_s.items()}
        before, self.stuck = self.stuck, tuple(s for s, a in ages_s.items() if a > self.stall_s)
        for stage in self.stuck:
            if stage not in before:
                _log.error("%s stands still for %.1f s", stage, ages_s[stage])
        for stage in before:
            if stage not in self.stuck:
                _log.warning("%s advances again", stage)
        if not set(self.stuck) <= set(before):
            self._dump()
        self._tend_publisher(now_s)
        if now_s >= self._next_word_s and not set(self.stuck) - {PUBLISHER}:
            self._next_word_s = now_s + self._word_every_s
            self._say()
        return self.stuck != before

    def _tend_publisher(self, now_s: float) -> None:
        """Restart a stuck publisher, again after each further `stall_s`."""
        if PUBLISHER not in self.stuck:
            self._restarted_s = None
        elif self._restarted_s is None or now_s - self._restarted_s > self.stall_s:
            self._restarted_s = now_s
            self.publisher_restarts += 1
            _log.error("publisher: restarted inside the agent")
            self._restart()
