"""Agent's side of the trial process, in which two bundles are compared.

A crash, hang or memory leak of the candidate ends that process only. It runs at the lowest CPU
priority (nice 19), both bundles alike.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from edge_agent.update.comparison import FrameComparison

if TYPE_CHECKING:
    from edge_agent.frame import Frame

_MAX_MESSAGE_BYTES = 1 << 20
_STALL_S = 300.0
"""Time limit for one answer; long, because nice 19 on a busy machine is slow."""
_TICK_S = 0.2
_Message = TypeVar("_Message")


class TrialProcessError(Exception):
    """Error of the trial process: it ended, hung or sent an invalid reply."""


class ArtifactPick(msgspec.Struct, frozen=True):
    """Artifact of a stage and the execution provider that runs it."""

    file: str
    provider: str


class TrialBundle(msgspec.Struct, frozen=True):
    """Verified bundle; without picks the process chooses as the agent does at its start."""

    folder: str
    sha256: str
    gate: ArtifactPick | None = None
    segmenter: ArtifactPick | None = None


class TrialRequest(msgspec.Struct, frozen=True):
    """Request that begins a trial: both bundles, and the rules of the choice."""

    running: TrialBundle
    candidate: TrialBundle
    precision: str
    threads: int
    providers: tuple[str, ...]


class TrialReady(msgspec.Struct, frozen=True):
    """Answer to the request: the artifacts that the candidate runs.

    `refusal` is the reason why the candidate cannot run here, or "".
    """

    refusal: str = ""
    gate: ArtifactPick | None = None
    segmenter: ArtifactPick | None = None


class TrialFrame(msgspec.Struct, frozen=True):
    """Header of a frame; the frame's bytes follow as a second message."""

    frame_id: int
    shape: tuple[int, ...]


class TrialProcess:
    """Process that compares two bundles; a context manager, which ends the process."""

    def __init__(
        self, begin: TrialRequest, go_on: Callable[[], None], stall_s: float = _STALL_S
    ) -> None:
        """Start the process.

        `go_on` is called a few times a second while waiting; an exception from it ends the wait.
        """
        self._begin, self._go_on, self._stall_s = begin, go_on, stall_s
        # Bytes only, never send() and recv(): recv() unpickles its input, and the candidate's
        # native code may write anything into the pipe.
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-m", "edge_agent.update.trial_worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                # A native library may print; stdout carries the command's own output.
                stdout=2,
                pass_fds=(theirs.fileno(),),
                # A Ctrl-C in the terminal must not reach it: the agent ends it.
                start_new_session=True,
            )
        # Set from here, so that its imports do not compete with the line either.
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 19)
        # A thread blocks on the pipe, so that the caller can give up at any time.
        self._pipe = ThreadPoolExecutor(1, "trial")

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def __enter__(self) -> TrialProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.shutdown()
        self._connection.close()

    def ready(self) -> TrialReady:
        """Wait until both bundles are loaded. Raises TrialProcessError."""
        return self._ask(TrialReady, msgspec.msgpack.encode(self._begin))

    def look(self, frame: Frame) -> FrameComparison:
        """Return the judgements of both bundles on a frame. Raises TrialProcessError."""
        image = np.ascontiguousarray(frame.image)
        header = msgspec.msgpack.encode(TrialFrame(frame.frame_id, image.shape))
        return self._ask(FrameComparison, header, image.reshape(-1).data)

    def _ask(self, kind: type[_Message], *messages: bytes | memoryview) -> _Message:
        """Send messages and return the decoded answer. Raises TrialProcessError."""
        answer = self._pipe.submit(self._exchange, *messages)
        until = time.monotonic() + self._stall_s
        while True:
            self._go_on()
            if wait((answer,), _TICK_S).done:
                break
            if time.monotonic() > until:
                raise TrialProcessError(f"no answer for {self._stall_s:.0f} s: it hangs")
        try:
            return msgspec.msgpack.decode(answer.result(), type=kind)
        except (EOFError, OSError):
            raise self._ended() from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TrialProcessError(f"invalid reply from the trial process: {error}") from None

    def _exchange(self, *messages: bytes | memoryview) -> bytes:
        for message in messages:
            self._connection.send_bytes(message)
        return self._connection.recv_bytes(_MAX_MESSAGE_BYTES)

    def _ended(self) -> TrialProcessError:
        """Return the error that reports how the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        if code is None:
            return TrialProcessError("invalid reply from the trial process: too long, or cut off")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return TrialProcessError(f"crashed in its trial ({how})")
