"""A quiet terminal, on a process that writes, fails and dies as the libraries do."""

import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from workshop import terminal

_CHATTER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
_HEAD = """\
import ctypes, logging, os, signal, sys, warnings
from edge_agent.errors import EdgeError
from workshop import terminal
def chatter():
    os.write(1, b"fully_quantize: 0\\n")
    os.write(2, b"W0000 cuda_platform.cc:52] failed call to cuInit\\n")
    ctypes.CDLL(None).puts(b"from C, in its own buffer")
    logging.getLogger("tf2onnx").warning("Using opset 17")
    warnings.warn("a library is old")
    print("a handler of theirs", file=sys.__stderr__)
"""

Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """`run(code)`: a process in which `chatter()` says what libraries say; logs are in tmp_path."""

    def run_it(code: str) -> Ran:
        return subprocess.run(
            [sys.executable, "-c", _HEAD + textwrap.dedent(code)],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run_it


def _logs(folder: Path) -> list[Path]:
    return list(folder.glob("*.log"))


def test_only_our_lines_reach_the_terminal(run: Callable[..., Ran], tmp_path: Path) -> None:
    done = run(
        """
        with terminal.quiet("x"):
            chatter()
            print("a result")
            print("how far", file=sys.stderr)
            chatter()
        print("after", file=sys.stderr)
        os.write(1, b"descriptors lead back\\n")
        """
    )
    assert (done.returncode, done.stdout) == (0, "a result\ndescriptors lead back\n")
    assert done.stderr == "how far\nafter\n"
    assert not _logs(tmp_path)


def test_verbose_keeps_all_of_it_and_says_where(run: Callable[..., Ran], tmp_path: Path) -> None:
    done = run("with terminal.quiet('x', verbose=True): chatter(); print('a result')")
    (log,) = _logs(tmp_path)
    assert done.stdout == "a result\n"
    assert done.stderr == f"x: what the libraries said: {log}\n"
    for said in ("fully_quantize", "cuInit", "from C", "opset 17", "is old", "of theirs"):
        assert said in log.read_text(), said


@pytest.mark.parametrize(
    "death", ["os.abort()", "ctypes.string_at(0)", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_a_process_that_dies_is_not_silent(
    death: str, run: Callable[..., Ran], tmp_path: Path
) -> None:
    done = run(f"with terminal.quiet('x'): chatter(); {death}")
    assert done.returncode in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGKILL)
    (log,) = _logs(tmp_path)
    first, *rest = done.stderr.splitlines()
    assert first == (f"x: ended by force; the end of what its libraries said (all of it: {log}):")
    assert "W0000 cuda_platform.cc:52] failed call to cuInit" in rest
    if "kill" not in death:  # nobody is asked before that
        assert any(line.startswith("Fatal Python error: ") for line in rest)


def test_a_process_that_is_killed_before_anything_was_said(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    done = run("with terminal.quiet('x'): os.kill(os.getpid(), signal.SIGKILL)")
    assert (done.returncode, done.stderr, _logs(tmp_path)) == (-signal.SIGKILL, "", [])


def test_an_error_nobody_expected_comes_with_what_the_libraries_said(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    done = run("with terminal.quiet('x'): chatter(); raise ValueError('unforeseen')")
    (log,) = _logs(tmp_path)
    assert done.stderr.startswith(f"x: failed; the end of what its libraries said ({log}):\n")
    assert "failed call to cuInit" in done.stderr
    assert done.stderr.endswith("ValueError: unforeseen\n")


def test_a_mistake_of_the_user_comes_alone(run: Callable[..., Ran], tmp_path: Path) -> None:
    done = run(
        """
        try:
            with terminal.quiet("x"):
                chatter()
                raise EdgeError("--out: no")
        except EdgeError as error:
            print(error, file=sys.stderr)
        """
    )
    assert (done.stderr, _logs(tmp_path)) == ("--out: no\n", [])


def test_within_a_process_all_is_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    streams, handlers = (sys.stdout, sys.stderr), [*logging.getLogger().handlers]
    shown = warnings.showwarning
    for _ in range(2):
        with terminal.quiet("x"):
            os.write(2, _CHATTER)
            print("ours")
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogger().handlers == handlers
    assert warnings.showwarning is shown
    os.write(2, b"back\n")
    out, err = capfd.readouterr()
    assert re.findall("ours", out) == ["ours", "ours"]
    assert err == "back\n"
