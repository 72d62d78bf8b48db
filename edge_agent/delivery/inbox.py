"""Inbox of the delivery thread: the single queue for all its input, in one order.

No call blocks. A draft that exceeds the limit is rejected; the first rejected draft and the number
of rejected drafts are kept, to be declared as a gap.
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
"""Incoming messages that may wait; further ones are discarded."""


@dataclass(frozen=True, slots=True)
class Unspooled:
    """Message to publish without spooling."""

    topic: str
    payload: bytes
    correlation_data: bytes | None


@dataclass(frozen=True, slots=True)
class NewHealth:
    """Latest health document, encoded as JSON."""

    document: bytes


@dataclass(frozen=True, slots=True)
class LinkNote:
    """Event reported by the connection with this number."""

    number: int
    note: Note


@dataclass(frozen=True, slots=True)
class RestartLink:
    """Request to replace the connection, unless no answer is outstanding."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Request to end when everything is sent, or at `until_s` of the monotonic clock."""

    until_s: float


@dataclass(frozen=True, slots=True)
class RejectedDrafts:
    """First rejected draft and number of drafts rejected at a limit of `limit`."""

    first: Draft
    count: int
    limit: int


Mail = Draft | Unspooled | StateDocument | NewHealth | LinkNote | RestartLink | Stop


class Inbox:
    """Queue filled from any thread and emptied by one."""

    def __init__(self, max_drafts: int) -> None:
        self._max_drafts = max_drafts
        self._mail: queue.SimpleQueue[Mail] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._turned_away: RejectedDrafts | None = None

    def offer(self, draft: Draft) -> bool:
        """Queue a draft; return False if the inbox is full (the rejection is declared)."""
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
        """Replace the retained state document, sent now and at each new connection."""
        self._mail.put(document)

    def set_health(self, document: bytes) -> None:
        """Queue the latest encoded health document; it replaces older unsent ones."""
        self._mail.put(NewHealth(document))

    def say(self, topic: str, payload: bytes, *, correlation_data: bytes | None = None) -> None:
        """Publish a reply on a full topic, unspooled; it is dropped while disconnected."""
        self._mail.put(Unspooled(topic, payload, correlation_data))

    def restart_publisher(self) -> None:
        """Request a new connection; the old one need not respond."""
        self._mail.put(RestartLink())

    def stop(self, until_s: float) -> None:
        """Request the end when everything is sent, or at `until_s` of the monotonic clock."""
        self._mail.put(Stop(until_s))

    def hear(self, number: int, note: Note) -> None:
        """Queue a note of connection `number`; called in paho's thread, so do no more."""
        # The window bounds the number of notes, so they always fit; incoming messages have none.
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
        """Return and clear the record of rejected drafts; None if there are none."""
        with self._lock:
            taken, self._turned_away = self._turned_away, None
        return taken

    @property
    def is_empty(self) -> bool:
        """True if nothing is queued and no rejected draft is left to declare."""
        return self._mail.empty() and not self._turned_away

    def __len__(self) -> int:
        return self._mail.qsize()
