"""The delivery thread's one inbox: whatever happens comes through it, in one order.

Whoever offers a draft never waits. One that finds no room is not taken; the first of these and how
many they were is kept, to be declared. What a connection says always finds room, since the window
bounds it; only messages to us have bounds of their own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.delivery.connection_events import Incoming, Note
from edge_agent.delivery.drafts import Draft

_MAX_INCOMING = 100
"""Messages to us that may wait to be handled; whoever sends more is not heard."""


@dataclass(frozen=True, slots=True)
class UnspooledMessage:
    """A message that is not spooled."""

    topic: str
    payload: bytes
    correlation_data: bytes | None


@dataclass(frozen=True, slots=True)
class ConnectionNote:
    """What the connection of this number says."""

    number: int
    note: Note


@dataclass(frozen=True, slots=True)
class RejectedDrafts:
    """Drafts that found `limit` others waiting."""

    first: Draft
    count: int
    limit: int


Mail = Draft | UnspooledMessage | ConnectionNote | None
"""None only wakes the thread."""


class Inbox:
    """Filled from any thread, emptied by one."""

    def __init__(self, max_drafts: int) -> None:
        self._max_drafts = max_drafts
        self._mail: queue.SimpleQueue[Mail] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._turned_away: RejectedDrafts | None = None

    def offer(self, draft: Draft) -> bool:
        """False when there is no room."""
        if self._mail.qsize() >= self._max_drafts:
            with self._lock:
                first, count = draft, 0
                if self._turned_away:
                    first, count = self._turned_away.first, self._turned_away.count
                self._turned_away = RejectedDrafts(first, count + 1, self._max_drafts)
            return False
        self._mail.put(draft)
        return True

    def say(self, said: UnspooledMessage) -> None:
        self._mail.put(said)

    def hear(self, number: int, note: Note) -> None:
        """In paho's thread: put it into the inbox, no more."""
        if isinstance(note, Incoming) and self._mail.qsize() > self._max_drafts + _MAX_INCOMING:
            return
        self._mail.put(ConnectionNote(number, note))

    def wake(self) -> None:
        self._mail.put(None)

    def collect(self, wait_s: float) -> Iterator[Mail]:
        """Wait for mail at most so long, then all there is."""
        try:
            mail = self._mail.get(timeout=wait_s)
            while True:
                yield mail
                mail = self._mail.get_nowait()
        except queue.Empty:
            pass

    def take_turned_away(self) -> RejectedDrafts | None:
        with self._lock:
            taken, self._turned_away = self._turned_away, None
        return taken

    @property
    def is_empty(self) -> bool:
        """Nor is there anything to declare."""
        return self._mail.empty() and not self._turned_away

    def __len__(self) -> int:
        return self._mail.qsize()
