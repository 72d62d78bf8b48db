"""Whether every stage advances, and what is done about one that does not.

A stage leaves a mark each time it comes round, with work or without: waiting is not hanging. A
stage whose mark is older than `stall_s` stands still. Then, once: the stacks of all threads go to
the journal. A publisher that stands still is restarted here, inside the process, as often as it
takes: the line goes on without it. For any other stage the word to systemd is held back until it
comes round again, and for no other reason; systemd then kills and restarts the agent.

`stall_s` is half of the unit's WatchdogSec and the word goes out every quarter, so the stacks are
in the journal at least a quarter of WatchdogSec before systemd strikes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

PUBLISHER = "publisher"
_ALONE_S = 30.0
"""Taken as WatchdogSec where no systemd waits for us: stacks and status are worth having there."""


class Watchdog:
    """Called from one thread. `say` sends the word, `dump` writes the stacks."""

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
        """The stages that stand still, as of the last look."""

    def look(self, marks_s: Mapping[str, float], now_s: float) -> bool:
        """Judge the marks and act on them; True when another stage stands still than before."""
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
        if PUBLISHER not in self.stuck:
            self._restarted_s = None
        elif self._restarted_s is None or now_s - self._restarted_s > self.stall_s:
            self._restarted_s = now_s
            self.publisher_restarts += 1
            _log.error("publisher: restarted inside the agent")
            self._restart()
