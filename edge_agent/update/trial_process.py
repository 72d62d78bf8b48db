"""Two bundles compared in a process of their own: the agent's side.

A crash, a hang or a leak of the candidate ends that process and nothing else. It takes the
processor only where nobody else wants it, and both bundles have the same lot.
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
"""At nice 19 on a busy machine all takes long; a process without an answer for this long hangs."""
_TICK_S = 0.2
_Message = TypeVar("_Message")


class TrialProcessError(Exception):
    """An end, a hang or an invalid reply of the process: one line on why."""


class ArtifactPick(msgspec.Struct, frozen=True):
    """The artifact of a stage that is run, and on which provider."""

    file: str
    provider: str


class TrialBundle(msgspec.Struct, frozen=True):
    """A verified bundle; without picks the process chooses as the agent does at its start."""

    folder: str
    sha256: str
    gate: ArtifactPick | None = None
    segmenter: ArtifactPick | None = None


class TrialRequest(msgspec.Struct, frozen=True):
    running: TrialBundle
    candidate: TrialBundle
    precision: str
    threads: int
    providers: tuple[str, ...]


class TrialReady(msgspec.Struct, frozen=True):
    """`refusal`: why the candidate cannot run here, or ""; else what it would run."""

    refusal: str = ""
    gate: ArtifactPick | None = None
    segmenter: ArtifactPick | None = None


class TrialFrame(msgspec.Struct, frozen=True):
    """A frame; its bytes follow."""

    frame_id: int
    shape: tuple[int, ...]


class TrialProcess:
    """Used as a context; the process is gone at its end."""

    def __init__(
        self, begin: TrialRequest, go_on: Callable[[], None], stall_s: float = _STALL_S
    ) -> None:
        """`go_on` is called while we wait, a few times a second; what it raises ends the wait."""
        self._begin, self._go_on, self._stall_s = begin, go_on, stall_s
        # Bytes only, never send() and recv(): they unpickle what the process writes, and there
        # the candidate's native code may write anything.
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-m", "edge_agent.update.trial_worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                # A native library may print; our standard output belongs to the command.
                stdout=2,
                pass_fds=(theirs.fileno(),),
                # Out of reach of the terminal's Ctrl-C: the agent ends it.
                start_new_session=True,
            )
        # From here and not from there, so that its imports do not compete with the line either.
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 19)
        # A thread waits in the pipe, for as long as the process lives; we stay free to leave.
        self._pipe = ThreadPoolExecutor(1, "trial")

    @property
    def pid(self) -> int:
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
        """Return what both bundles make of a frame. Raises TrialProcessError."""
        image = np.ascontiguousarray(frame.image)
        header = msgspec.msgpack.encode(TrialFrame(frame.frame_id, image.shape))
        return self._ask(FrameComparison, header, image.reshape(-1).data)

    def _ask(self, kind: type[_Message], *messages: bytes | memoryview) -> _Message:
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
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        if code is None:
            return TrialProcessError("invalid reply from the trial process: too long, or cut off")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return TrialProcessError(f"crashed in its trial ({how})")
