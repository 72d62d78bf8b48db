"""Frame sampler of a trial: random frames of the line, one at a time.

The inference thread offers each frame and never waits; the update thread takes the picked ones.
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
    """Sampler that holds at most one picked frame."""

    def __init__(self) -> None:
        self._picked: queue.Queue[Inspection] = queue.Queue(1)
        self._picking, self._to_pass = False, 0

    def see(self, inspected: Inspection) -> None:
        """Offer an inspected frame, from the inference thread; it never blocks."""
        if not self._picking or inspected.failed:
            return
        if not self._picked.empty():
            # Roll marks repeat at a fixed interval, and so would frames taken each time the trial
            # process is free: the sample could miss all of them, or contain nothing else.
            self._to_pass = random.randrange(_MOST_PASSED + 1)  # noqa: S311 - no secret
        elif self._to_pass:
            self._to_pass -= 1
        else:
            # The camera may reuse its buffer.
            frame = replace(inspected.frame, image=inspected.frame.image.copy())
            self._picked.put_nowait(replace(inspected, frame=frame))

    @contextlib.contextmanager
    def picking(self) -> Iterator[None]:
        """Pick frames inside the context; discard a frame left at its end."""
        self._picking = True
        try:
            yield
        finally:
            self._picking = False
            while self.take(0.0):
                pass

    def take(self, wait_s: float) -> Inspection | None:
        """Return the picked frame; wait up to `wait_s`, then return None."""
        try:
            return self._picked.get(timeout=wait_s)
        except queue.Empty:
            return None
