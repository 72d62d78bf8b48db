"""The chain of the agent up to its frames, without an agent: opened, looked at, closed again.

The backend's blocks pass a Tap on their way to be frames. A camera that stays silent too long ends
the command with what to do about it.
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
from edge_agent.cli.common import RunFailure
from edge_agent.config.camera import Camera as CameraConfig
from edge_agent.errors import CameraError
from edge_agent.frame import Block, Frame

_WAIT_S = 10.0
_SILENT = (
    f"no frame within {_WAIT_S:.0f} s; if the camera waits for a trigger or the encoder, "
    "move the strip, else see TriggerMode in `edge-agent camera info`"
)


class _RecordedCamera:
    """A backend whose blocks are looked at on their way."""

    def __init__(self, backend: Backend, tap: Callable[[], BlockRecorder]) -> None:
        self._backend, self._tap = backend, tap
        self.live, self.first_block_id = backend.live, backend.first_block_id

    def grab(self, timeout_s: float) -> Block | None:
        block = self._backend.grab(timeout_s)
        if block is not None:
            self._tap().take(block)
        return block

    def counters(self) -> StreamCounters:
        return self._backend.counters()

    def close(self) -> None:
        self._backend.close()


class CameraSession:
    """A camera that may come back, each time with the same tap behind its backend."""

    def __init__(self, config: CameraConfig) -> None:
        self.config, self.tap = config, BlockRecorder()
        self.opened: Any = None
        """What the backend found and set; None where it says nothing."""

    def begin_anew(self) -> None:
        """Rates of what comes from now on."""
        self.tap = BlockRecorder()

    def open(self) -> Backend:
        backend = open_backend(self.config)
        self.opened = getattr(backend, "opened", None)
        self.tap.forget_last()
        return _RecordedCamera(backend, lambda: self.tap)


@contextlib.contextmanager
def assembled(config: CameraConfig) -> Iterator[tuple[LineCamera, CameraSession]]:
    session = CameraSession(config)
    camera = LineCamera(session.open, check_images=False)
    try:
        yield camera, session
    finally:
        camera.close()


def frames(camera: LineCamera) -> Iterator[Frame]:
    """Until the camera ends; gaps are named on stderr. Raises Started when it is silent."""
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
    """Raises CameraError when the camera is silent."""
    end_s = time.monotonic() + _WAIT_S
    while time.monotonic() < end_s:
        block = backend.grab(0.5)
        if block is not None:
            return block
    raise CameraError(_SILENT)
