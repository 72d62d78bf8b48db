"""Messages as stored in the spool, and the changes of one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PICTURE = "evidence/"
"""Prefix of picture messages, which are dropped before events and gaps."""

PENDING, SENT, ASIDE = 0, 1, 2
"""States of a message: unsent, accepted by the broker, dead letter."""


@dataclass(frozen=True, slots=True)
class Message:
    """Message to store; `kind` is its topic below the agent's: event, gap, evidence/ID."""

    kind: str
    boot_id: str
    payload: bytes
    seq: int = 0


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """Message in the spool; `again` is True if a person requested that it be sent again."""

    id: int
    message: Message
    spooled_ns: int = 0
    again: bool = False
    state: int = PENDING
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StoreChange:
    """Changes of one transaction.

    `sent` are ids to mark as sent, `aside` ids to mark as dead letters, with a reason, and `new`
    messages to store, in order.
    """

    sent: Sequence[int] = ()
    aside: Sequence[tuple[int, str]] = ()
    new: Sequence[StoredMessage] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """Filter by time of spooling, in ns since 1970, bounds included, and by state."""

    since_ns: int = 0
    until_ns: int = (1 << 63) - 1
    states: tuple[int, ...] = (PENDING, SENT, ASIDE)

    @property
    def where(self) -> tuple[str, tuple[int, ...]]:
        """SQL condition of the filter and the values of its parameters."""
        marks = ",".join("?" * len(self.states))
        return f"spooled_ns BETWEEN ? AND ? AND state IN ({marks})", (
            self.since_ns,
            self.until_ns,
            *self.states,
        )
