"""The two retained documents, state and health: not spooled, since only the newest of each counts.

The state document is the birth of a connection; what the broker says when we are gone is the same,
offline.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edge_agent.messages.state import StateDocument


class Retained:
    """Used from one thread, connected or not."""

    def __init__(self, state: StateDocument) -> None:
        self._state, self._state_sent = state, False
        self._health: bytes | None = None

    def set_state(self, document: StateDocument) -> None:
        self._state, self._state_sent = document, False

    def set_health(self, document: bytes) -> None:
        self._health = document

    def connected(self) -> None:
        """A new connection begins with the state."""
        self._state_sent = False

    def overheard(self, payload: bytes) -> None:
        """What the broker has on our state's topic."""
        # The will of an earlier connection, which the broker took for alive, came after our birth
        # document: say that once more.
        if b'"offline"' in payload:
            self._state_sent = False

    def take(self) -> Iterator[tuple[str, bytes]]:
        """Topic and payload of each that is to be sent now."""
        if not self._state_sent:
            self._state_sent = True
            yield "state", msgspec.json.encode(self._state)
        health, self._health = self._health, None
        if health is not None:
            yield "health", health

    @property
    def health_waits(self) -> bool:
        return self._health is not None

    def farewell(self) -> bytes:
        """The state when we are gone: our last word, and the will."""
        # A will is spoken by the broker, maybe long after the bundle has changed.
        document = msgspec.structs.replace(
            self._state, state="offline", bundle=None, inspecting=False, update=None
        )
        return msgspec.json.encode(document)
