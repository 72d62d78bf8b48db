"""Read-only access to the spool's file while the agent writes it.

It sees the disk only: while the agent's spool is in memory, newer messages are missing here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_agent.delivery.spool.message import ASIDE, PENDING, SENT, MessageFilter, StoredMessage
from edge_agent.delivery.spool.store import chosen
from edge_agent.errors import SpoolError

STATES = {
    "pending": PENDING,
    "sent": SENT,
    "refused": ASIDE,
}
"""State names used in the command line."""
_NAMES = {number: name for name, number in STATES.items()}


class SpoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Messages by state; `pending` includes pictures. Times in ns since 1970."""

    pending: int
    sent: int
    refused: int
    pictures_pending: int
    oldest_pending_ns: int | None
    newest_ns: int | None
    used_bytes: int


def state_of(stored: StoredMessage) -> str:
    """Return the name of a message's state: pending, sent or refused."""
    return _NAMES[stored.state]


class SpoolReader:
    """Read-only connection to a spool file.

    Raises SpoolError if there is no spool or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # sqlite3's own context manager handles transactions, it does not close; hence `close`.
        if not path.is_file():
            raise SpoolError(f"{path}: no spool is there; has an agent with this config run?")
        with self._told():
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)

    def status(self) -> SpoolStatus:
        """Return the counts, times and size of the spool. Raises SpoolError."""
        with self._told():
            counts = dict(self._db.execute("SELECT state, count(*) FROM outbox GROUP BY state"))
            (pictures,) = self._db.execute(
                "SELECT count(*) FROM outbox WHERE state = 0 AND picture = 1"
            ).fetchone()
            (oldest,) = self._db.execute(
                "SELECT min(spooled_ns) FROM outbox WHERE state = 0"
            ).fetchone()
            (newest,) = self._db.execute("SELECT max(spooled_ns) FROM outbox").fetchone()
            pages, free, size = (
                int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        return SpoolStatus(
            **{name: counts.get(number, 0) for name, number in STATES.items()},
            pictures_pending=pictures,
            oldest_pending_ns=oldest,
            newest_ns=newest,
            used_bytes=(pages - free) * size,
        )

    def messages(self, choice: MessageFilter, after: int = 0) -> Iterator[StoredMessage]:
        """Yield messages with ids above `after`, in spool order. Raises SpoolError."""
        with self._told():
            yield from chosen(self._db, choice, after)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Convert database errors in the block to SpoolError."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise SpoolError(f"{self._path}: cannot be read: {error}") from None
