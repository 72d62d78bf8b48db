"""What an update sees of the line: some frames are picked for a trial, all count for a proof.

Both are told of each frame by the inference thread, which must not wait, and are asked by the
update's.
"""

from __future__ import annotations

import contextlib
import queue
import random
from collections.abc import Iterator
from dataclasses import replace

from edge_agent.pipeline.pipeline import Inspection

_MOST_PASSED = 4


class FrameSampler:
    """One frame at a time, while they are picked."""

    def __init__(self) -> None:
        self._picked: queue.Queue[Inspection] = queue.Queue(1)
        self._picking, self._to_pass = False, 0

    def see(self, inspected: Inspection) -> None:
        """In the inference thread."""
        if not self._picking or inspected.failed:
            return
        if not self._picked.empty():
            # What a roll stamps comes at a steady pace, and so would frames taken whenever the
            # sandbox is free: they could miss all of it, or see nothing else.
            self._to_pass = random.randrange(_MOST_PASSED + 1)  # noqa: S311 - no secret
        elif self._to_pass:
            self._to_pass -= 1
        else:
            # The camera may use its buffer again.
            frame = replace(inspected.frame, image=inspected.frame.image.copy())
            self._picked.put_nowait(replace(inspected, frame=frame))

    @contextlib.contextmanager
    def picking(self) -> Iterator[None]:
        """Frames are picked within; one that is left at the end is forgotten."""
        self._picking = True
        try:
            yield
        finally:
            self._picking = False
            while self.take(0.0):
                pass

    def take(self, wait_s: float) -> Inspection | None:
        try:
            return self._picked.get(timeout=wait_s)
        except queue.Empty:
            return None
