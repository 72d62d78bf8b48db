"""What was sent and has no answer yet, what an answer means, and what is to be sent next.

Pure: no clock, no thread, no connection; the spool is only asked. No more than the window is under
way. A connection begins with the oldest message in the spool, and what may have been sent before
goes out marked as such. A message is answered once: it may leave the spool (Taken), is to be set
aside (Never), or is kept, to be sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from edge_agent.delivery import encoding, losses
from edge_agent.delivery.connection_events import Acknowledged, Connected, Lost
from edge_agent.delivery.spool.message import PICTURE, StoredMessage

_NEVER = frozenset((0x87, 0x90, 0x95, 0x99))
"""Not authorised, topic name invalid, packet too large, payload format invalid."""
_LATER = frozenset((0x97,))
"""Quota exceeded: nothing is wrong with the message."""
_ABOUT_THE_MESSAGE = frozenset((0x81, 0x82, 0x90, 0x95, 0x99))
"""A connection that ends so ended because of what we sent."""
TAKEN_OVER = 0x8E
MAX_TRIES = 8


class RefusalCounter:
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


_log = logging.getLogger(__name__)

_REST_S, _MAX_RESTING = 30.0, 100
"""A refused gap that declares refused messages is tried again; so many are at a time."""

After = Callable[[int, int], Sequence[StoredMessage]]
"""`after(id, limit)`: up to `limit` unsent messages with ids above `id`, in order."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker has it."""

    stored: StoredMessage


@dataclass(frozen=True, slots=True)
class Rejected:
    """The broker will not take it."""

    stored: StoredMessage
    why: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not over this connection."""

    why: str


@dataclass(frozen=True, slots=True)
class _Sent:
    """`stored` is None for what is not spooled."""

    name: str
    stored: StoredMessage | None
    at_s: float


class InFlight:
    def __init__(self, window: int) -> None:
        self._max_window = window
        self._receive_maximum: int | None = None
        self._in_flight: dict[int, _Sent] = {}
        self._cursor = self._replay_until = 0
        self._resting: dict[int, float] = {}
        self._refusals = RefusalCounter()

    def __len__(self) -> int:
        """How many have no answer."""
        return len(self._in_flight)

    @property
    def resting(self) -> int:
        """How many were refused and are tried again some time."""
        return len(self._resting)

    def waiting_s(self, now_s: float) -> float:
        """How long the oldest waits for its answer."""
        oldest = next(iter(self._in_flight.values()), None)
        return now_s - oldest.at_s if oldest else 0.0

    # A connection begins and ends.

    def connected(self, limits: Connected, last_id: int) -> None:
        """What has an id up to `last_id` may have been sent before."""
        self._receive_maximum = limits.receive_maximum
        self._cursor, self._replay_until = 0, last_id

    def ended(self, note: Lost) -> Rejected | None:
        """The broker ended a connection it had accepted; the message that was the reason."""
        spooled = [one.stored for one in self._in_flight.values() if one.stored]
        if not self._refusals.ended([stored.id for stored in spooled], note.code):
            return None
        self.give_up(spooled[0])
        return Rejected(spooled[0], f"it ends: {note.reason}")

    def forget(self) -> None:
        """No answer will come any more."""
        self._in_flight.clear()

    # What goes out.

    def from_the_oldest(self) -> None:
        """Messages became unsent somewhere in the spool."""
        self._cursor = 0

    def due(self, after: After, settled: Set[int], now_s: float) -> Sequence[StoredMessage]:
        """What there is room for, in order. `settled` were answered, and are in the spool yet."""
        room = self._window - len(self._in_flight)
        if room <= 0:
            return ()
        held = {one.stored.id for one in self._in_flight.values() if one.stored}
        held.update(i for i, until_s in self._resting.items() if now_s < until_s)
        rested = min(self._resting.keys() - held, default=None)
        if rested is not None:
            self._cursor = min(self._cursor, rested - 1)
        held |= settled
        found = after(self._cursor, room + sum(i > self._cursor for i in held))
        if rested is not None and (not found or found[0].id > rested):
            del self._resting[rested]  # it gave way, declared like any other
        return [one for one in found if one.id not in held][:room]

    def begin(self, stored: StoredMessage) -> bytes:
        """Its payload, as it goes out now. The next one is looked for behind it."""
        self._cursor = stored.id
        again = stored.again or stored.id <= self._replay_until or stored.id in self._resting
        if again and not stored.message.kind.startswith(PICTURE):
            return encoding.replayed(stored.message.payload)
        return stored.message.payload

    def give_up(self, stored: StoredMessage) -> None:
        """It is not tried any more."""
        self._resting.pop(stored.id, None)

    def sent(self, mid: int, name: str, now_s: float, stored: StoredMessage | None = None) -> None:
        self._in_flight[mid] = _Sent(name, stored, now_s)

    @property
    def _window(self) -> int:
        if self._refusals.careful:
            return 1
        return min(self._max_window, self._receive_maximum or self._max_window)

    # What the broker answers.

    def answered(self, note: Acknowledged, now_s: float) -> Accepted | Rejected | Deferred | None:
        """None where nothing is to be done."""
        one = self._in_flight.pop(note.mid, None)
        if one is None:
            return None
        stored = one.stored
        if stored is None:
            if note.refused is not None:
                _log.error("broker: %s refused: %s", one.name, note.refused)
            return None
        if note.refused is None:
            self._refusals.sent(stored.id)
            self.give_up(stored)
            return Accepted(stored)
        if not self._refusals.refused(stored.id, note.code):
            return Deferred(f"publish refused: {note.refused}")
        if losses.says_refused(stored.message) and len(self._resting) < _MAX_RESTING:
            # It declares what else was refused: set aside, that would be lost without a word;
            # declared in its turn, there would be no end.
            self._resting[stored.id] = now_s + _REST_S
            return None
        self.give_up(stored)
        return Rejected(stored, f"the broker says: {note.refused}")
