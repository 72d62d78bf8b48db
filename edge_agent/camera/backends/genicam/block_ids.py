"""Block ids of a stream as an increasing count from 1, independent of the transport's id range."""

from __future__ import annotations


class BlockIds:
    """Unwrapper for the block ids of one stream.

    GigE Vision counts 1 to 65,535 and then 1 again, without 0 (`first` 1, `bits` 16), or in 64 bits
    with extended ids. The result is the count nearest to the previous one, so that a late or
    repeated block keeps its lower number.
    """

    def __init__(self, *, bits: int = 16, first: int = 1) -> None:
        self._first, self._period = first, (1 << bits) - first
        self._last: int | None = None

    def unwrap(self, block_id: int) -> int:
        """Return the unwrapped count; raises ValueError for an id outside the stream's range."""
        if not self._first <= block_id < self._first + self._period:
            raise ValueError(
                f"block id {block_id}: not within {self._first} to {self._first + self._period - 1}"
            )
        if self._last is None:
            self._last = block_id
            return block_id
        half = self._period // 2
        step = (block_id - self._last + half) % self._period - half
        found = self._last + step
        self._last = max(self._last, found)
        return found


_NEAR_START = 8
_MAX_16 = 0xFFFF


class BlockCount:
    """Block numbers of one stream, counted from 1.

    A GigE Vision stream begins with block 1; a first id slightly above 1 means that blocks were
    lost before it. If a camera continues the count of an earlier stream, such a loss cannot be
    detected, and its first block becomes number 1. Ids have 16 bits without 0, or 64 bits; the
    first id above 16 bits shows which.

    `wraps` is True for ids that wrap at 16 bits (GigE Vision); else ids are long and may begin
    with 0.
    """

    def __init__(self, *, wraps: bool) -> None:
        self._ids = BlockIds() if wraps else None
        self._offset: int | None = None

    def number(self, block_id: int) -> int:
        """Return the block number; raises ValueError for an id outside the stream's range."""
        if self._ids and block_id > _MAX_16:
            self._ids = None
        count = self._ids.unwrap(block_id) if self._ids else block_id
        if self._offset is None:
            if count == 0:
                self._offset = 1
            else:
                self._offset = 0 if count <= _NEAR_START else 1 - count
        return count + self._offset
