"""What a broker's refusal of a message means for it: sent again later, or set aside for good.

A message that the broker will never take must not hold up those behind it. It is set aside, with
the reason, where a person finds it (`edge-agent spool`), and its number is declared in a gap.
"""

from __future__ import annotations

_NEVER = frozenset((0x87, 0x90, 0x95, 0x99))
"""Not authorised, topic name invalid, packet too large, payload format invalid."""
_LATER = frozenset((0x97,))
"""Quota exceeded: nothing is wrong with the message."""
_ABOUT_THE_MESSAGE = frozenset((0x81, 0x82, 0x90, 0x95, 0x99))
"""A connection that ends so ended because of what we sent."""
TAKEN_OVER = 0x8E
MAX_TRIES = 8


class Refusals:
    """Counts the tries of the message at the head of the line."""

    def __init__(self) -> None:
        self._tries: dict[int, int] = {}
        self._head = self._ends = self._clear_ends = 0

    @property
    def careful(self) -> bool:
        """Two connections ended at the same message: send it alone, to know whether it is that."""
        return self._ends >= 2

    def sent(self, spool_id: int) -> None:
        """It was taken."""
        self._tries.pop(spool_id, None)
        self._ends = self._clear_ends = 0

    def refused(self, spool_id: int, code: int) -> bool:
        """Whether it is to be set aside."""
        if code in _LATER:
            return False
        self._tries[spool_id] = self._tries.get(spool_id, 0) + 1
        return code in _NEVER or self._tries[spool_id] >= MAX_TRIES

    def ended(self, unacknowledged: list[int], code: int | None) -> bool:
        """The broker ended a connection; whether the one message under way is to be set aside."""
        if not unacknowledged:
            return False
        head = min(unacknowledged)
        if head != self._head:
            self._head, self._ends, self._clear_ends = head, 0, 0
        self._ends += 1
        self._clear_ends += code in _ABOUT_THE_MESSAGE
        alone = len(unacknowledged) == 1
        return alone and (self._clear_ends >= 3 or self._ends >= MAX_TRIES)
