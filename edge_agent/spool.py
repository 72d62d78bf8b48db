"""Messages on their way out, on the disk until the broker has acknowledged them.

Ordered, bounded in bytes (the oldest give way), one writer. SQLite in WAL mode with
synchronous=FULL: what `append` has returned survives kill -9 and a torn write. A file that
cannot be used is set aside, and where the disk cannot be used at all the spool goes on in
memory and says so in `medium`: the agent never refuses to inspect because of its spool.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    payload BLOB NOT NULL
)
"""
_FIRST_MEMORY_ID = 1 << 48
"""Above any id on a disk: who reads on from the last id finds what came after it, and an
acknowledgement still under way deletes nothing else."""


@dataclass(frozen=True, slots=True)
class Message:
    """`kind` is the last part of the topic: event or gap. `payload` is the encoded CloudEvent."""

    kind: str
    boot_id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    id: int
    message: Message


class Spool:
    """Used from one thread, the one that opened it."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._count = self._bytes = 0
        self.medium: Literal["disk", "memory"] = "disk"
        self._max_bytes = max_bytes
        self._db = sqlite3.connect(":memory:")
        try:
            self._open(path)
        except (OSError, sqlite3.OperationalError) as error:
            # Locked, full, no rights: the disk's fault, and the file may be sound.
            self._go_to_memory(error)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self._second_try(path, error)

    def append(self, messages: Iterable[Message]) -> tuple[Message, ...]:
        """Store in order, all or none; returns what had to give way to them, oldest first."""
        rows = [(m.kind, m.boot_id, m.payload) for m in messages]
        try:
            self._insert(rows)
        except sqlite3.Error as error:
            self._go_to_memory(error)
            self._insert(rows)
        return self._make_room()

    def after(self, message_id: int, limit: int) -> tuple[Stored, ...]:
        """Up to `limit` messages with ids above `message_id`, in order."""
        try:
            rows = self._db.execute(
                "SELECT id, kind, boot_id, payload FROM message WHERE id > ? ORDER BY id LIMIT ?",
                (message_id, limit),
            ).fetchall()
        except sqlite3.Error as error:
            self._go_to_memory(error)
            return ()
        return tuple(Stored(i, Message(k, b, p)) for i, k, b, p in rows)

    def delete(self, ids: Sequence[int]) -> None:
        deleted: list[int] = []
        try:
            with self._db:
                for message_id in ids:
                    row = self._db.execute(
                        "DELETE FROM message WHERE id = ? RETURNING length(payload)", (message_id,)
                    ).fetchone()
                    if row:
                        deleted.append(row[0])
        except sqlite3.Error as error:
            # They stay and are sent again; subscribers drop them by (agent, boot_id, seq).
            _log.error("spool: acknowledged messages cannot be deleted: %s", error)
            return
        self._count -= len(deleted)
        self._bytes -= sum(deleted)

    @property
    def last_id(self) -> int:
        try:
            row = self._db.execute("SELECT coalesce(max(id), 0) FROM message").fetchone()
        except sqlite3.Error as error:
            self._go_to_memory(error)
            return 0
        return int(row[0])

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        self._db.close()

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._use(sqlite3.connect(path, timeout=5))
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check failed")
        self._db.execute(_SCHEMA)
        self._measure()

    def _second_try(self, path: Path, error: Exception) -> None:
        aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
        _log.error("spool: %s cannot be used (%s); set aside as %s", path, error, aside.name)
        try:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            path.rename(aside)
            # What the log holds was committed: it stays with its file, for whoever looks into it.
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).rename(f"{aside}{suffix}")
            self._open(path)
        except (OSError, sqlite3.Error) as again:
            self._go_to_memory(again)

    def _go_to_memory(self, error: Exception) -> None:
        _log.error("spool: the disk cannot be used (%s); going on in memory", error)
        self.medium = "memory"
        self._use(sqlite3.connect(":memory:"))
        with self._db:
            self._db.execute(_SCHEMA)
            self._db.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('message', ?)",
                (_FIRST_MEMORY_ID,),
            )
        self._measure()

    def _use(self, db: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._db = db

    def _insert(self, rows: list[tuple[str, str, bytes]]) -> None:
        with self._db:
            self._db.executemany(
                "INSERT INTO message (kind, boot_id, payload) VALUES (?,?,?)", rows
            )
        self._count += len(rows)
        self._bytes += sum(len(payload) for _, _, payload in rows)

    def _make_room(self) -> tuple[Message, ...]:
        gone: list[Stored] = []
        while self._bytes > self._max_bytes and self._count > 1:
            before, oldest = self._count, self.after(0, 1)
            self.delete([o.id for o in oldest])
            if self._count >= before:  # the disk does not let go of them
                break
            gone += oldest
        return tuple(g.message for g in gone)

    def _measure(self) -> None:
        self._count, self._bytes = self._db.execute(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM message"
        ).fetchone()
