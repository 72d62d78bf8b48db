"""Messages as the spool keeps them, and what one transaction does with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PICTURE = "evidence/"
"""The kinds that begin so give way before events and gaps."""

PENDING, SENT, ASIDE = 0, 1, 2
"""States of a message: to be sent, taken by the broker, kept apart for a person."""


@dataclass(frozen=True, slots=True)
class Message:
    """`kind` is what follows the agent's topic: event, gap, evidence/ID."""

    kind: str
    boot_id: str
    payload: bytes
    seq: int = 0


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """`again`: to be sent though it was sent before, by a person's wish."""

    id: int
    message: Message
    spooled_ns: int = 0
    again: bool = False
    state: int = PENDING
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StoreChange:
    """What one transaction does: mark as sent, set aside with a reason, store in order."""

    sent: Sequence[int] = ()
    aside: Sequence[tuple[int, str]] = ()
    new: Sequence[StoredMessage] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """Messages by when they were spooled, in ns since 1970, and by what became of them."""

    since_ns: int = 0
    until_ns: int = (1 << 63) - 1
    states: tuple[int, ...] = (PENDING, SENT, ASIDE)

    @property
    def where(self) -> tuple[str, tuple[int, ...]]:
        marks = ",".join("?" * len(self.states))
        return f"spooled_ns BETWEEN ? AND ? AND state IN ({marks})", (
            self.since_ns,
            self.until_ns,
            *self.states,
        )
