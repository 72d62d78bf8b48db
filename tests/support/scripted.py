"""A camera that does what a script says, block by block."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from edge_agent.camera import EndOfStream, StreamCounters
from edge_agent.frame import Block, LineSpan

PIXELS = 40


def line_image(first: int, count: int, pixels: int = PIXELS) -> np.ndarray:
    """Noise that is a function of the line's number."""
    rows = [
        np.random.default_rng(line).integers(40, 200, pixels)
        for line in range(first, first + count)
    ]
    return np.array(rows, np.uint8).reshape(count, pixels)


_SPAN_FIELDS = tuple(field.name for field in fields(LineSpan))


def block(block_id: int | None, lines: int = 10, **changes: Any) -> Block:
    """The block of that number of a camera that counts from 0. `changes`: of it or of its span."""
    span: dict[str, Any] = {
        "first_line": 0,
        "line_count": lines,
        "captured_utc_ns": time.time_ns(),
        "captured_monotonic_ns": time.monotonic_ns(),
    }
    span |= {name: changes.pop(name) for name in _SPAN_FIELDS if name in changes}
    values: dict[str, Any] = {
        "data": line_image((block_id or 0) * lines, lines),
        "pixel_format": "Mono8",
        "width_px": PIXELS,
        "span": LineSpan(**span),
        "block_id": block_id,
    }
    return Block(**values | changes)


class Scripted:
    """Each step is a block, None (nothing came), an int (the stream's count of lost blocks from now
    on) or an exception that is raised. After the last step the stream ends.

    It holds a socket and a thread, as the driver of a real camera does.
    """

    live = True
    open_ones = 0

    def __init__(
        self, steps: Iterable[Block | int | Exception | None], first_block_id: int | None = None
    ) -> None:
        self.first_block_id = first_block_id
        self._steps: Iterator[Block | int | Exception | None] = iter(steps)
        self._lost = 0
        self._socket = socket.socketpair()
        self._thread = threading.Thread(target=self._socket[0].recv, args=(1,), daemon=True)
        self._thread.start()
        type(self).open_ones += 1
        self._closed = False

    def grab(self, timeout_s: float) -> Block | None:
        assert not self._closed
        for step in self._steps:
            if isinstance(step, int):
                self._lost = step
                continue
            if isinstance(step, Exception):
                raise step.with_traceback(None)  # one that is raised again keeps all frames
            return step
        raise EndOfStream

    def counters(self) -> StreamCounters:
        assert not self._closed
        return StreamCounters(lost_blocks=self._lost, lost_packets=2 * self._lost)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._socket[1].close()
        self._thread.join()
        self._socket[0].close()
        type(self).open_ones -= 1
