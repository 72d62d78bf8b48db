"""A real RTSP server for the tests: `rtsp_server.py` in a process of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

_SERVER = Path(__file__).with_name("rtsp_server.py")
_PYTHON = "/usr/bin/python3"  # the one that has GStreamer's bindings


class RtspServer:
    def __init__(self, port: int, recording: Path, *login: str) -> None:
        command = [_PYTHON, str(_SERVER), str(port), str(recording), *login]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"
        self.url = f"rtsp://127.0.0.1:{port}/strip"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()


class StartServer(Protocol):
    """Start a server for a recording; it ends with the context."""

    def __call__(self, port: int, recording: Path, *login: str) -> RtspServer: ...


@contextlib.contextmanager
def rtsp_servers() -> Iterator[StartServer]:
    """Starts servers, `(port, recording, *login)`; those that still run are killed at the end."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if (
        not shutil.which(_PYTHON)
        or subprocess.run([_PYTHON, "-c", probe], capture_output=True, check=False).returncode
    ):
        pytest.skip("GStreamer's RTSP server is not installed (`make test` brings it)")
    running: list[RtspServer] = []

    def start(port: int, recording: Path, *login: str) -> RtspServer:
        running.append(RtspServer(port, recording, *login))
        return running[-1]

    try:
        yield start
    finally:
        for one in running:
            one.kill()
