"""The delivery thread's one inbox: everything that happens comes through it, in one order.

It is built first and handed to each part that speaks. A call never waits. A draft that finds no
room is not taken; the first of these and their count are kept, to be declared.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.delivery.connection_events import Incoming, Note
from edge_agent.delivery.drafts import Draft
from edge_agent.messages.state import StateDocument

_MAX_INCOMING = 100
"""Messages to us that may wait to be handled; whoever sends more is not heard."""


@dataclass(frozen=True, slots=True)
class Unspooled:
    """A message that is not spooled."""

    topic: str
    payload: bytes
    correlation_data: bytes | None


@dataclass(frozen=True, slots=True)
class NewHealth:
    """The newest health document, encoded."""

    document: bytes


@dataclass(frozen=True, slots=True)
class LinkNote:
    """What the connection of this number says."""

    number: int
    note: Note


@dataclass(frozen=True, slots=True)
class RestartLink:
    """Replace the connection, unless it has nothing to answer."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End when all is sent, or at this time of the monotonic clock."""

    until_s: float


@dataclass(frozen=True, slots=True)
class RejectedDrafts:
    """Drafts that found `limit` others waiting."""

    first: Draft
    count: int
    limit: int


Mail = Draft | Unspooled | StateDocument | NewHealth | LinkNote | RestartLink | Stop


class Inbox:
    """Filled from any thread, emptied by one."""

    def __init__(self, max_drafts: int) -> None:
        self._max_drafts = max_drafts
        self._mail: queue.SimpleQueue[Mail] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._turned_away: RejectedDrafts | None = None

    def offer(self, draft: Draft) -> bool:
        """Hand over a draft; False when there is no room, which is then declared."""
        if self._mail.qsize() >= self._max_drafts:
            with self._lock:
                first, count = draft, 0
                if self._turned_away:
                    first, count = self._turned_away.first, self._turned_away.count
                self._turned_away = RejectedDrafts(first, count + 1, self._max_drafts)
            return False
        self._mail.put(draft)
        return True

    def set_state(self, document: StateDocument) -> None:
        """The state document from now on: retained, sent when connected, and at each connection."""
        self._mail.put(document)

    def set_health(self, document: bytes) -> None:
        """The latest health document; sent when connected, older ones are forgotten."""
        self._mail.put(NewHealth(document))

    def say(self, topic: str, payload: bytes, *, correlation_data: bytes | None = None) -> None:
        """Publish on a whole topic, not spooled: a reply. Dropped where we are not connected."""
        self._mail.put(Unspooled(topic, payload, correlation_data))

    def restart_publisher(self) -> None:
        """Give the connection up for a new one. It need not answer for that."""
        self._mail.put(RestartLink())

    def stop(self, until_s: float) -> None:
        self._mail.put(Stop(until_s))

    def hear(self, number: int, note: Note) -> None:
        """Take a connection's note; called in paho's thread, so it does no more than that."""
        # A note always finds room, since the window bounds them; only messages to us do not.
        if isinstance(note, Incoming) and self._mail.qsize() > self._max_drafts + _MAX_INCOMING:
            return
        self._mail.put(LinkNote(number, note))

    def collect(self, wait_s: float) -> Iterator[Mail]:
        """Wait up to `wait_s` for one item, then yield everything queued."""
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
        """Nothing is queued, and nothing is to be declared."""
        return self._mail.empty() and not self._turned_away

    def __len__(self) -> int:
        return self._mail.qsize()
