"""Block ids that wrap round, as a count that only rises."""

from __future__ import annotations


class BlockIds:
    """Unwraps ids of one stream, from when it was opened.

    GigE Vision counts 1 to 65,535 and then 1 again, without 0 (`first` 1, `bits` 16), or in 64 bits
    with extended ids. The nearest count to the one before is taken, so that a late or repeated
    block keeps its lower number.
    """

    def __init__(self, *, bits: int = 16, first: int = 1) -> None:
        self._first, self._period = first, (1 << bits) - first
        self._last: int | None = None

    def unwrap(self, block_id: int) -> int:
        """ValueError for an id that the stream cannot have."""
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
