"""GigE Vision cameras that are processes of their own, and the one port that they all want.

Discovery knows no port but 3956, so only one simulated camera can be on an address of loopback:
`gvcp_port` lets the tests of this machine have it one after the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.camera.backends.genicam import gvcp

LONG = os.environ.get("LINEGATE_LONG") == "1"
"""The long form of tests that have two: more frames, for longer, and with timings asserted, which
only a machine that has nothing else to do can promise."""

_DEADLINE_S = 30.0


@contextlib.contextmanager
def gvcp_port() -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / "linegate-tests-gvcp.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def aravis_program() -> str:
    program = shutil.which("arv-fake-gv-camera-0.8")
    if program is None:
        pytest.skip("aravis-tools is not installed (`make test` brings it)")
    return program


class Camera:
    """A simulated camera on 127.0.0.1 as a process."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        end_s = time.monotonic() + _DEADLINE_S
        while not gvcp.answers("127.0.0.1", 0.2, 1):
            assert time.monotonic() < end_s, "the simulated camera does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process:
            assert self._process.stdin
            self._process.stdin.close()
            self._process.kill()
            self._process.wait(_DEADLINE_S)
            self._process = None

    def freeze(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)


def aravis(*, lost_per_thousand: int = 0, serial: str = "LINE-A") -> Camera:
    return Camera(
        [
            aravis_program(),
            *("-i", "127.0.0.1", "-s", serial, "-r", str(lost_per_thousand)),
        ]
    )


def viva(width: int = 1600, height: int = 256, fps: int = 30) -> Camera:
    """FakeGigeCamera by itself, so that what it costs is not counted as ours."""
    code = (
        "import sys\n"
        "from viva_genicam.testing import FakeGigeCamera\n"
        f"with FakeGigeCamera(width={width}, height={height}, fps={fps}):\n"
        "    sys.stdin.read()\n"
    )
    return Camera([sys.executable, "-c", code])
