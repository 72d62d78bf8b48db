"""Camera session: the agent's chain from backend to frames, without the agent.

A recorder sees each block between backend and frames. A camera that stays silent too long ends the
command with the fix.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from edge_agent.camera import Backend, EndOfStream, StreamCounters, open_backend
from edge_agent.camera.commissioning import BlockRecorder
from edge_agent.camera.line_camera import LineCamera
from edge_agent.cli.kit import RunFailure
from edge_agent.config.camera import Camera as CameraConfig
from edge_agent.errors import CameraError
from edge_agent.frame import Block, Frame

_WAIT_S = 10.0
_SILENT = (
    f"no frame within {_WAIT_S:.0f} s; if the camera waits for a trigger or the encoder, "
    "move the strip, else see TriggerMode in `edge-agent camera info`"
)


class _RecordedCamera:
    """Backend that passes each block to a recorder."""

    def __init__(self, backend: Backend, tap: Callable[[], BlockRecorder]) -> None:
        self._backend, self._tap = backend, tap
        self.live, self.first_block_id = backend.live, backend.first_block_id

    def grab(self, timeout_s: float) -> Block | None:
        """Return the next block after recording it; None after `timeout_s`."""
        block = self._backend.grab(timeout_s)
        if block is not None:
            self._tap().take(block)
        return block

    def counters(self) -> StreamCounters:
        """Return the backend's counters."""
        return self._backend.counters()

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()


class CameraSession:
    """Session of a camera that may reconnect; each backend gets the current recorder."""

    def __init__(self, config: CameraConfig) -> None:
        self.config, self.tap = config, BlockRecorder()
        self.opened: Any = None
        """Report of the backend on the opened camera; None if it has none."""

    def begin_anew(self) -> None:
        """Restart the statistics with a new recorder."""
        self.tap = BlockRecorder()

    def open(self) -> Backend:
        """Open the backend, with the recorder. Raises CameraError."""
        backend = open_backend(self.config)
        self.opened = getattr(backend, "opened", None)
        self.tap.forget_last()
        return _RecordedCamera(backend, lambda: self.tap)


@contextlib.contextmanager
def assembled(config: CameraConfig) -> Iterator[tuple[LineCamera, CameraSession]]:
    """Yield the camera and its session; close the camera at the end."""
    session = CameraSession(config)
    camera = LineCamera(session.open, check_images=False)
    try:
        yield camera, session
    finally:
        camera.close()


def frames(camera: LineCamera) -> Iterator[Frame]:
    """Yield frames until the camera ends; print gaps on stderr.

    Raises RunFailure after 10 s without a frame.
    """
    waited_s = time.monotonic()
    while time.monotonic() - waited_s < _WAIT_S:
        try:
            taken = camera.grab(0.5)
        except EndOfStream:
            return
        if isinstance(taken, Frame):
            yield taken
            waited_s = time.monotonic()
        elif taken is not None:
            print(f"gap: {taken.reason.value}: {taken.detail}", file=sys.stderr)
    raise RunFailure(_SILENT)


def first_block(backend: Backend) -> Block:
    """Return the first block. Raises CameraError after 10 s without one."""
    end_s = time.monotonic() + _WAIT_S
    while time.monotonic() < end_s:
        block = backend.grab(0.5)
        if block is not None:
            return block
    raise CameraError(_SILENT)
