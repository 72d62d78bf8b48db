"""Messages in one SQLite database, on disk or in memory; it never uses more than `max_bytes`.

Dropped first: sent messages, then pictures, dead letters, and last the oldest unsent messages. The
same transaction stores the declaration of unsent ones, so no loss is hidden, even by a power cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_agent.delivery.spool.message import (
    ASIDE,
    PENDING,
    PICTURE,
    SENT,
    Message,
    MessageFilter,
    StoreChange,
    StoredMessage,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state INTEGER NOT NULL,
    again INTEGER NOT NULL,
    picture INTEGER NOT NULL,
    kind TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    spooled_ns INTEGER NOT NULL,
    reason TEXT,
    payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_state ON outbox (state, id);
CREATE INDEX IF NOT EXISTS outbox_picture ON outbox (id) WHERE picture = 1 AND state = 0;
"""
_PAGE_BYTES = 4096
_LEAST_PAGES = 24
_SLACK_PAGES = 6  # for indexes and half-filled pages
_COLUMNS = "id, kind, boot_id, payload, seq, spooled_ns, again, state, reason"


Declare = Callable[[Sequence[Message]], StoredMessage]
"""Return the message that declares the dropped messages, which have payloads for gaps only."""


@dataclass(slots=True)
class _Counts:
    """Number of messages by state."""

    pending: int = 0
    sent: int = 0
    aside: int = 0


class Store:
    """Table of messages in one database.

    Each method raises sqlite3.Error; the change is then rolled back and the counts are correct.
    """

    def __init__(self, db: sqlite3.Connection, max_bytes: int, history: int) -> None:
        self._db, self._history = db, history
        db.isolation_level = None
        db.executescript(_SCHEMA)
        self._max_pages = max(_LEAST_PAGES, max_bytes // _PAGE_BYTES)
        db.execute(f"PRAGMA max_page_count = {self._max_pages}")
        self._take_over()
        self._count()

    def write(self, change: StoreChange, declare: Declare) -> int:
        """Apply a change completely or not at all.

        Returns:
            The number of unsent messages dropped, which `declare` has declared.

        Raises:
            sqlite3.Error: the disk fails, or there is no room even after dropping.
        """
        spare = 1
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                dropped = self._write(change, declare, spare)
                self._db.execute("COMMIT")
            except sqlite3.Error:
                # SQLite reports our own bound and a full disk alike. At the bound, drop more; on a
                # full disk drop nothing, since the spool can continue in memory.
                ours = self._db.in_transaction and self._used() >= self._max_pages
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._count()
                if not ours or spare > 100:
                    raise
                spare *= 6
            else:
                return dropped

    def after(self, message_id: int, limit: int) -> tuple[StoredMessage, ...]:
        """Return up to `limit` unsent messages with ids above `message_id`, in order."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE state = 0 AND id > ? ORDER BY id LIMIT ?",  # noqa: S608
            (message_id, limit),
        )
        return tuple(_stored(row) for row in rows)

    def send_again(self, choice: MessageFilter) -> int:
        """Mark sent messages and dead letters as unsent; return their number."""
        where, values = choice.where
        cursor = self._db.execute(
            f"UPDATE outbox SET state = 0, again = 1 WHERE state <> 0 AND {where}",  # noqa: S608
            values,
        )
        self._count()
        return cursor.rowcount

    @property
    def pending(self) -> int:
        """Number of unsent messages."""
        return self._counts.pending

    @property
    def aside(self) -> int:
        """Number of dead letters."""
        return self._counts.aside

    @property
    def sent(self) -> int:
        """Number of sent messages still stored."""
        return self._counts.sent

    @property
    def last_id(self) -> int:
        """Highest id ever used in this database."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _write(self, change: StoreChange, declare: Declare, spare: int) -> int:
        self._mark(change)
        gone: list[Message] = []
        if change.new:
            need = _pages(change.new)
            room = self._room()
            if room < need * spare:
                # Drop more than needed now, since each drop adds a declaration.
                gone = self._make_room(need * spare + self._max_pages // 32)
        for one in change.new:
            self._insert(one)
        if gone:
            self._insert(declare(gone))
        return len(gone)

    def _mark(self, change: StoreChange) -> None:
        execute = self._db.executemany
        before = self._db.total_changes
        if self._history:
            sql = "UPDATE outbox SET state = 1, again = 0 WHERE id = ? AND state = 0"
            execute(sql, [(i,) for i in change.sent])
            self._counts.sent += self._db.total_changes - before
        else:
            execute("DELETE FROM outbox WHERE id = ? AND state = 0", [(i,) for i in change.sent])
        sent = self._db.total_changes - before
        before = self._db.total_changes
        execute(
            "UPDATE outbox SET state = 2, again = 0, reason = ? WHERE id = ? AND state = 0",
            [(reason, i) for i, reason in change.aside],
        )
        aside = self._db.total_changes - before
        self._counts.pending -= sent + aside
        self._counts.aside += aside
        extra = self._counts.sent - self._history
        if extra > self._history // 8:
            self._delete("SELECT id FROM outbox WHERE state = 1 ORDER BY id LIMIT ?", (extra,))
            self._counts.sent -= extra

    def _make_room(self, pages: int) -> list[Message]:
        gone: list[Message] = []
        for where, state in (
            ("state = 1", SENT),
            ("picture = 1 AND state = 0", PENDING),
            ("state = 2", ASIDE),
            ("state = 0", PENDING),
        ):
            # Only gaps need their payload: the losses they declare must be declared again.
            sql = (
                "SELECT id, kind, boot_id, CASE kind WHEN 'gap' THEN payload ELSE x'' END, seq "  # noqa: S608
                f"FROM outbox WHERE {where} ORDER BY id LIMIT 32"
            )
            while self._room() < pages:
                rows = self._db.execute(sql).fetchall()
                if not rows:
                    break
                self._db.executemany("DELETE FROM outbox WHERE id = ?", [(r[0],) for r in rows])
                self._tally(state, -len(rows))
                if state == PENDING:
                    gone += [Message(*row[1:]) for row in rows]
        return gone

    def _insert(self, one: StoredMessage) -> None:
        m = one.message
        self._db.execute(
            "INSERT INTO outbox (id, state, again, picture, kind, boot_id, seq, spooled_ns, reason,"
            " payload) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                one.id,
                one.state,
                one.again,
                m.kind.startswith(PICTURE),
                m.kind,
                m.boot_id,
                m.seq,
                one.spooled_ns,
                one.reason,
                m.payload,
            ),
        )
        self._tally(one.state, 1)

    def _delete(self, select: str, values: tuple[int, ...]) -> None:
        self._db.execute(f"DELETE FROM outbox WHERE id IN ({select})", values)  # noqa: S608

    def _room(self) -> int:
        """Return the number of pages that the current transaction may still use."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(free) + self._max_pages - self._used()

    def _used(self) -> int:
        return int(self._db.execute("PRAGMA page_count").fetchone()[0])

    def _tally(self, state: int, by: int) -> None:
        name = ("pending", "sent", "aside")[state]
        setattr(self._counts, name, getattr(self._counts, name) + by)

    def _count(self) -> None:
        self._counts = _Counts()
        for state, count in self._db.execute("SELECT state, count(*) FROM outbox GROUP BY state"):
            self._tally(state, count)

    def _take_over(self) -> None:
        """Move the unsent messages of version 0.1.0 from its table, which had no states."""
        if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'message'").fetchone():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT INTO outbox SELECT NULL, 0, 0, 0, kind, boot_id, 0, 0, NULL, payload "
                "FROM message ORDER BY id"
            )
            self._db.execute("DROP TABLE message")
            self._db.execute("COMMIT")


def chosen(
    db: sqlite3.Connection, choice: MessageFilter, after: int = 0
) -> Iterator[StoredMessage]:
    """Yield the messages of a filter with ids above `after`, in order.

    Reads in chunks of 200: one long read transaction would prevent SQLite from resetting the log.
    """
    cursor, (where, values) = after, choice.where
    while True:
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE id > ? AND {where} ORDER BY id LIMIT 200",  # noqa: S608
            (cursor, *values),
        ).fetchall()
        yield from map(_stored, rows)
        if len(rows) < 200:
            return
        cursor = rows[-1][0]


def _pages(new: Sequence[StoredMessage]) -> int:
    """Estimate the number of pages that new messages need.

    `write` retries with a larger value if the estimate is too low.
    """
    sizes = [len(one.message.payload) + 150 for one in new]
    small = sum(size for size in sizes if size < 2000) // 2500
    return small + sum(2 + size // 4000 for size in sizes if size >= 2000) + _SLACK_PAGES


def _stored(row: tuple[int, str, str, bytes, int, int, int, int, str | None]) -> StoredMessage:
    message_id, kind, boot_id, payload, seq, spooled_ns, again, state, reason = row
    return StoredMessage(
        message_id, Message(kind, boot_id, payload, seq), spooled_ns, bool(again), state, reason
    )
