"""Messages in flight: sent, acknowledgement outstanding. Handles answers, selects the next ones.

Pure: no clock, no thread, no connection; the spool is read only. At most one window is in flight.
Each connection starts at the oldest message; those possibly sent before are marked as replayed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from edge_agent.delivery import encoding, losses
from edge_agent.delivery.connection_events import Acknowledged, Connected, Lost
from edge_agent.delivery.spool.message import PICTURE, StoredMessage

_NEVER = frozenset((0x87, 0x90, 0x95, 0x99))
"""Final: not authorised, topic name invalid, packet too large, payload format invalid."""
_LATER = frozenset((0x97,))
"""Quota exceeded: the message itself is valid."""
_ABOUT_THE_MESSAGE = frozenset((0x81, 0x82, 0x90, 0x95, 0x99))
"""Reason codes of a disconnect that is caused by a message we sent."""
TAKEN_OVER = 0x8E
MAX_TRIES = 8


class RefusalCounter:
    """Counter of the failed attempts of each refused message and of the oldest one."""

    def __init__(self) -> None:
        self._tries: dict[int, int] = {}
        self._head = self._ends = self._clear_ends = 0

    @property
    def careful(self) -> bool:
        """True if two connections ended at the same message: send it alone to test it."""
        return self._ends >= 2

    def sent(self, spool_id: int) -> None:
        """Clear the counters of a message that the broker accepted."""
        self._tries.pop(spool_id, None)
        self._ends = self._clear_ends = 0

    def refused(self, spool_id: int, code: int) -> bool:
        """Count a refusal; return True if the message becomes a dead letter."""
        if code in _LATER:
            return False
        self._tries[spool_id] = self._tries.get(spool_id, 0) + 1
        return code in _NEVER or self._tries[spool_id] >= MAX_TRIES

    def ended(self, unacknowledged: list[int], code: int | None) -> bool:
        """Count a connection that the broker ended.

        Args:
            unacknowledged: spool ids of the messages in flight.
            code: MQTT 5 reason code of the disconnect, or None.

        Returns:
            True if the single message in flight becomes a dead letter.
        """
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
"""A refused gap that declares refused messages is retried after this time; at most this many."""

After = Callable[[int, int], Sequence[StoredMessage]]
"""`after(id, limit)` returns up to `limit` unsent messages with ids above `id`, in order."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Message that the broker accepted; it may leave the spool."""

    stored: StoredMessage


@dataclass(frozen=True, slots=True)
class Rejected:
    """Message that the broker refused finally; it becomes a dead letter."""

    stored: StoredMessage
    why: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """Message that the broker refused for now; it is sent again over a new connection."""

    why: str


@dataclass(frozen=True, slots=True)
class _Sent:
    """Message in flight; `stored` is None if it is not spooled."""

    name: str
    stored: StoredMessage | None
    at_s: float


class InFlight:
    """Messages in flight and position in the spool; used from one thread."""

    def __init__(self, window: int, after: After) -> None:
        self._max_window, self._after = window, after
        self._receive_maximum: int | None = None
        self._in_flight: dict[int, _Sent] = {}
        self._cursor = self._replay_until = 0
        self._resting: dict[int, float] = {}
        self._refusals = RefusalCounter()

    def __len__(self) -> int:
        """Return the number of messages in flight."""
        return len(self._in_flight)

    @property
    def resting(self) -> int:
        """Number of refused messages that are retried later."""
        return len(self._resting)

    def waiting_s(self, now_s: float) -> float:
        """Return how long the oldest message has been in flight, in s; 0 if none is."""
        oldest = next(iter(self._in_flight.values()), None)
        return now_s - oldest.at_s if oldest else 0.0

    # Start and end of a connection.

    def connected(self, limits: Connected, last_id: int) -> None:
        """Start at the oldest message; those up to id `last_id` may have been sent before."""
        self._receive_maximum = limits.receive_maximum
        self._cursor, self._replay_until = 0, last_id

    def ended(self, note: Lost) -> Rejected | None:
        """Record that the broker ended an accepted connection.

        Returns:
            The message that caused it, now given up, or None.
        """
        spooled = [one.stored for one in self._in_flight.values() if one.stored]
        if not self._refusals.ended([stored.id for stored in spooled], note.code):
            return None
        self.give_up(spooled[0])
        return Rejected(spooled[0], f"it ends: {note.reason}")

    def forget(self) -> None:
        """Clear the messages in flight: their answers can no longer arrive."""
        self._in_flight.clear()

    # Outgoing messages.

    def from_the_oldest(self) -> None:
        """Restart at the oldest message, after messages became unsent again."""
        self._cursor = 0

    def due(self, settled: Set[int], now_s: float) -> Sequence[StoredMessage]:
        """Return the messages that fit in the window, in order.

        Args:
            settled: ids that are answered but still unsent in the spool.
            now_s: monotonic time in s.
        """
        room = self._window - len(self._in_flight)
        if room <= 0:
            return ()
        held = {one.stored.id for one in self._in_flight.values() if one.stored}
        held.update(i for i, until_s in self._resting.items() if now_s < until_s)
        rested = min(self._resting.keys() - held, default=None)
        if rested is not None:
            self._cursor = min(self._cursor, rested - 1)
        held |= settled
        found = self._after(self._cursor, room + sum(i > self._cursor for i in held))
        if rested is not None and (not found or found[0].id > rested):
            del self._resting[rested]  # the spool dropped it, and declared that
        return [one for one in found if one.id not in held][:room]

    def begin(self, stored: StoredMessage) -> bytes:
        """Return the payload to send and move the position behind `stored`.

        The payload is marked as replayed if the message may have been sent before.
        """
        self._cursor = stored.id
        again = stored.again or stored.id <= self._replay_until or stored.id in self._resting
        if again and not stored.message.kind.startswith(PICTURE):
            return encoding.replayed(stored.message.payload)
        return stored.message.payload

    def give_up(self, stored: StoredMessage) -> None:
        """Stop retrying `stored`."""
        self._resting.pop(stored.id, None)

    def sent(self, mid: int, name: str, now_s: float, stored: StoredMessage | None = None) -> None:
        """Record a message sent under packet id `mid`; `stored` is None if not spooled."""
        self._in_flight[mid] = _Sent(name, stored, now_s)

    @property
    def _window(self) -> int:
        if self._refusals.careful:
            return 1
        return min(self._max_window, self._receive_maximum or self._max_window)

    # Answers of the broker.

    def answered(self, note: Acknowledged, now_s: float) -> Accepted | Rejected | Deferred | None:
        """Return the result of an acknowledgement, or None if no action follows."""
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
            # This gap declares other refused messages. As a dead letter it would hide their loss;
            # declared by a further gap, the chain would never end.
            self._resting[stored.id] = now_s + _REST_S
            return None
        self.give_up(stored)
        return Rejected(stored, f"the broker says: {note.refused}")
