"""Retained documents, state and health: not spooled, since only the newest of each counts.

The state document is the birth message of a connection; its offline form is the last will.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edge_agent.messages.state import StateDocument


class Retained:
    """Current retained documents and their state of delivery; used from one thread."""

    def __init__(self, state: StateDocument) -> None:
        self._state, self._state_sent = state, False
        self._health: bytes | None = None

    def set_state(self, document: StateDocument) -> None:
        """Replace the state document, to be sent."""
        self._state, self._state_sent = document, False

    def set_health(self, document: bytes) -> None:
        """Replace the encoded health document, to be sent."""
        self._health = document

    def connected(self) -> None:
        """Send the state document again over a new connection."""
        self._state_sent = False

    def overheard(self, payload: bytes) -> None:
        """Handle the retained payload that the broker holds on the state topic."""
        # The broker noticed the end of an earlier connection late and published its will after our
        # birth document: send that again.
        if b'"offline"' in payload:
            self._state_sent = False

    def take(self) -> Iterator[tuple[str, bytes]]:
        """Yield topic and payload of each document to send now, and mark it as sent."""
        if not self._state_sent:
            self._state_sent = True
            yield "state", msgspec.json.encode(self._state)
        health, self._health = self._health, None
        if health is not None:
            yield "health", health

    @property
    def health_waits(self) -> bool:
        """True if a health document is unsent."""
        return self._health is not None

    def farewell(self) -> bytes:
        """Return the offline state document, for the shutdown and the last will."""
        # The broker may publish the will long after the bundle has changed: leave it out.
        document = msgspec.structs.replace(
            self._state, state="offline", bundle=None, inspecting=False, update=None
        )
        return msgspec.json.encode(document)
