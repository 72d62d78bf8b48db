"""Spool: ordered, bounded queue on disk that keeps each message until the broker acknowledges it.

Data survives kill -9 and torn writes once `write` returns (SQLite, WAL, synchronous=FULL). A
damaged file is quarantined; while the disk fails, the spool uses memory. `medium` and `alarms`
report both.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.clock import SYSTEM, Clock
from edge_agent.delivery.spool.message import Message, MessageFilter, StoreChange, StoredMessage
from edge_agent.delivery.spool.store import Store

_log = logging.getLogger(__name__)

_RETRY_S = 10.0
"""Interval between attempts to use a failed disk again."""
_MAX_MEMORY_BYTES = 64 << 20
_LOG_PAGES = 500


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Number of unsent messages dropped, and of messages that declare the loss."""

    dropped: int = 0
    declarations: int = 0


Declare = Callable[[Sequence[Message], int], Message]
"""Return the message that declares a loss, given the dropped messages (with payload for gaps only)
and the number of earlier declarations in the same call. Called again if a transaction is redone."""


class Spool:
    """Message queue on disk, or in memory while the disk fails; used from the opening thread."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        *,
        history: int = 0,
        clock: Clock = SYSTEM,
    ) -> None:
        """Open the spool at `path`, or in memory if the disk fails.

        Args:
            path: SQLite file, created if missing.
            max_bytes: upper limit of the file's size.
            history: number of sent messages to keep.
            clock: source of time.
        """
        self._path, self._max_bytes, self._history = path, max_bytes, history
        self._clock = clock
        self._disk: Store | None = None
        self._memory: Store | None = None
        self._owed: dict[int, str | None] = {}  # not on disk yet; sent: None, dead letter: reason
        self._trouble = ""
        self._retry_at_s = 0.0
        self.set_aside = ""
        """Name of the quarantined file, whose messages will not be sent; "" if none."""
        self._next_id = self._memory_from = 1
        self._written = WriteResult()
        try:
            self._disk = self._opened()
            self._seen_id()
        except (OSError, sqlite3.Error) as error:
            self._go_to_memory(error)

    @property
    def medium(self) -> Literal["disk", "memory"]:
        """Storage in use: disk, or memory while the disk fails."""
        return "disk" if self._memory is None else "memory"

    @property
    def alarms(self) -> tuple[str, ...]:
        """Alarm texts: storage in memory, quarantined file, dead letters."""
        found = []
        if self._memory is not None:
            found.append(f"spool: in memory, the disk fails: {self._trouble}")
        if self.set_aside:
            found.append(f"spool: its file was damaged and is set aside as {self.set_aside}")
        if self.aside:
            found.append(f"spool: {self.aside} messages set aside that the broker refused")
        return tuple(found)

    def write(
        self,
        messages: Sequence[Message] = (),
        *,
        sent: Sequence[int] = (),
        aside: Sequence[tuple[int, str]] = (),
        declare: Declare,
    ) -> WriteResult:
        """Store messages and mark others in one transaction.

        Messages of more than `max_message_bytes` in total may not fit, however much is dropped.

        Args:
            messages: new messages, stored in order.
            sent: ids of messages that the broker accepted.
            aside: ids of dead letters, each with its reason.
            declare: makes the message that declares dropped messages.

        Returns:
            The number of dropped messages and of declarations.
        """
        self._written = WriteResult()
        first = self._next_id
        new = [StoredMessage(first + n, m, self._clock.utc_ns()) for n, m in enumerate(messages)]
        self._next_id += len(new)
        change = StoreChange(sent, aside, new)
        if self._memory is None and self._disk is not None:
            try:
                self._commit(self._disk, change, declare)
            except sqlite3.Error as error:
                self._go_to_memory(error)
                self._memory_from = first
        if self._memory is not None:
            self._write_to_memory(self._memory, change, declare)
        return self._written

    def tend(self, declare: Declare) -> WriteResult:
        """Move the messages from memory back to the disk if it works again.

        Order and ids stay the same. `declare` makes the message that declares dropped messages.

        Returns:
            The number of dropped messages and of declarations.
        """
        self._written = WriteResult()
        if self._memory is None or self._clock.monotonic_s() < self._retry_at_s:
            return self._written
        self._retry_at_s = self._clock.monotonic_s() + _RETRY_S
        try:
            self._close_disk()
            self._disk = self._opened()
            self._seen_id()
            sent = [i for i, reason in self._owed.items() if reason is None]
            aside = [(i, reason) for i, reason in self._owed.items() if reason is not None]
            self._commit(self._disk, StoreChange(sent, aside), declare)
            self._owed.clear()
            while rows := self._memory.after(0, 4):
                self._commit(self._disk, StoreChange(new=rows), declare)
                self._memory.write(StoreChange(sent=[row.id for row in rows]), _never)
        except (OSError, sqlite3.Error) as error:
            self._trouble = str(error)
            return self._written
        self._memory.close()
        self._memory = None
        _log.warning("spool: back on the disk")
        return self._written

    def after(self, message_id: int, limit: int) -> tuple[StoredMessage, ...]:
        """Return up to `limit` unsent messages with ids above `message_id`, in order."""
        found: list[StoredMessage] = []
        if self._disk is not None:
            try:
                rows = self._disk.after(message_id, limit + len(self._owed) if limit else 0)
                found = [one for one in rows if one.id not in self._owed][:limit]
            except sqlite3.Error as error:
                # Messages on disk wait until it is readable; newer ones in memory overtake them.
                self._go_to_memory(error)
                self._close_disk()
        if self._memory is not None and len(found) < limit:
            found += self._memory.after(message_id, limit - len(found))
        return tuple(found)

    def send_again(self, choice: MessageFilter) -> int:
        """Mark sent messages and dead letters as unsent; return how many, 0 while in memory."""
        if self._disk is None or self._memory is not None:
            return 0
        try:
            return self._disk.send_again(choice)
        except sqlite3.Error as error:
            self._go_to_memory(error)
            return 0

    @property
    def max_message_bytes(self) -> int:
        """Largest size of a message in bytes; a larger one would displace all others."""
        return max(16 << 10, min(self._max_bytes, _MAX_MEMORY_BYTES) // 8)

    @property
    def last_id(self) -> int:
        """Highest id given so far."""
        return self._next_id - 1

    @property
    def aside(self) -> int:
        """Number of dead letters."""
        return sum(store.aside for store in (self._disk, self._memory) if store)

    def __len__(self) -> int:
        """Return the number of unsent messages."""
        stores = [store.pending for store in (self._disk, self._memory) if store]
        return max(0, sum(stores) - (len(self._owed) if self._disk else 0))

    def hurry(self) -> None:
        """Let the next `tend` try the disk without waiting for the retry interval."""
        self._retry_at_s = 0.0

    def close(self) -> None:
        """Close the spool. Messages in memory are lost; call `hurry` and `tend` first."""
        self._close_disk()
        if self._memory is not None:
            self._memory.close()

    # Disk.

    def _opened(self) -> Store:
        """Open the store, quarantining a damaged file. Raises OSError or sqlite3.Error."""
        try:
            return self._open()
        except sqlite3.OperationalError:
            raise  # locked, full or no permission: the file may be intact
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self._put_aside(error)
            return self._open()

    def _open(self) -> Store:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=5)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {2 * _LOG_PAGES * 4096}")
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check failed")
            return Store(db, self._max_bytes, self._history)
        except BaseException:
            db.close()
            raise

    def _put_aside(self, error: Exception) -> None:
        aside = self._path.with_name(f"{self._path.name}.corrupt-{self._clock.utc_ns()}")
        _log.error("spool: %s cannot be used (%s); set aside as %s", self._path, error, aside.name)
        self._path.rename(aside)
        self.set_aside = aside.name
        # The log holds committed data, so it stays with its file for later analysis.
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).rename(f"{aside}{suffix}")

    def _close_disk(self) -> None:
        if self._disk is not None:
            with contextlib.suppress(sqlite3.Error):
                self._disk.close()
            self._disk = None

    # Memory, while the disk fails.

    def _go_to_memory(self, error: Exception) -> None:
        self._trouble = str(error)
        if self._memory is None:
            _log.error("spool: the disk cannot be used (%s); going on in memory", error)
            limit = min(self._max_bytes, _MAX_MEMORY_BYTES)
            self._memory = Store(sqlite3.connect(":memory:"), limit, 0)
            self._memory_from = self._next_id
        self._retry_at_s = self._clock.monotonic_s() + _RETRY_S

    def _write_to_memory(self, memory: Store, change: StoreChange, declare: Declare) -> None:
        owed = dict.fromkeys(change.sent) | dict(change.aside)
        self._owed |= {i: reason for i, reason in owed.items() if i < self._memory_from}
        try:
            self._commit(memory, change, declare)
        except sqlite3.Error as error:  # memory is bounded, but no message is that large
            _log.error("spool: a batch of %d messages is lost: %s", len(change.new), error)

    def _commit(self, store: Store, change: StoreChange, declare: Declare) -> None:
        def say(gone: Sequence[Message]) -> StoredMessage:
            message = declare(gone, self._written.declarations)
            return StoredMessage(self._next_id, message, self._clock.utc_ns())

        dropped = store.write(change, say)
        if dropped:
            self._next_id += 1
            was = self._written
            self._written = WriteResult(was.dropped + dropped, was.declarations + 1)

    def _seen_id(self) -> None:
        if self._disk is not None:
            self._next_id = max(self._next_id, self._disk.last_id + 1)


def _never(gone: Sequence[Message]) -> StoredMessage:
    raise sqlite3.OperationalError(f"{len(gone)} messages would have to give way")
