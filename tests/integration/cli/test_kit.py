"""How every command line ends: one line for a mistake, a code that says when it happened."""

import os
import subprocess
import sys

import pytest

from edge_agent.cli import kit
from edge_agent.errors import ConfigError, EdgeError


class _Late(EdgeError):
    exit_code = 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("mqtt.root: 'a/b': give one word"), 2, "x: mqtt.root: 'a/b': give one word\n"),
        (_Late("--out: full; make room"), 1, "x: --out: full; make room\n"),
        (kit.RunFailure("the camera is silent"), 1, "x: the camera is silent\n"),
        (KeyboardInterrupt(), 130, "x: interrupted; run it again\n"),
    ],
)
def test_an_error_is_one_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> None:
        raise error

    assert kit.run("x", act, hint="; run it again") == code
    assert capsys.readouterr() == ("", said)


def test_ctrl_c_is_how_an_endless_command_ends(capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        raise KeyboardInterrupt

    assert kit.run("x", act, endless=True) == 0
    assert capsys.readouterr() == ("", "")


def test_what_a_command_gives_is_its_code() -> None:
    assert kit.run("x", lambda: None) == 0
    assert kit.run("x", lambda: 1) == 1


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_left_is_no_mistake(lines: int) -> None:
    """One line is in Python's buffer until the end, many are written before."""
    code = (
        "import sys; from edge_agent.cli import kit; sys.stdin.read();"
        f"sys.exit(kit.run('x', lambda: [print('line') for _ in range({lines})] and None))"
    )
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE
    ) as process:
        os.close(write)
        os.close(read)
        _, said = process.communicate(b"")
    assert (process.returncode, said) == (141, b"")


def test_another_broken_pipe_is_not_taken_for_the_readers() -> None:
    def act() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        kit.run("x", act)
