"""Functions shared by all five command lines: help, --json, --version, exit codes.

An error is one line on stderr, `program: field: value; fix`. Exit codes: 0 done, 1 failed after the
start, 2 refused at the start, 130 Ctrl-C, 141 output closed early (`edge-agent tail ... | head`).
"""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable

from edge_agent.errors import EdgeError
from edge_agent.version import VERSION

DONE, FAILED, REFUSED, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141

_EXIT_CODES = "\nexit codes: 0 done, 1 failed while running, 2 refused at the start\n"


class RunFailure(Exception):
    """Error after the start, for an EdgeError whose exit code must be 1."""


def parser(
    program: str, text: str, examples: str, *, usage: str | None = None
) -> argparse.ArgumentParser:
    """Return the parser of a command line; line breaks in `examples` are kept."""
    made = argparse.ArgumentParser(
        prog=program,
        usage=usage,
        description=text,
        epilog=examples + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"linegate {VERSION}")
    return made


def json_option(parser: argparse.ArgumentParser, text: str = "print JSON") -> None:
    """Add the option --json."""
    parser.add_argument("--json", action="store_true", help=text)


def run(
    program: str,
    act: Callable[[], int | None],
    *,
    endless: bool = False,
    hint: str = "",
) -> int:
    """Run `act`, report its error and return the exit code.

    Args:
        program: Name at the start of an error line.
        act: Returns an exit code, or None for 0.
        endless: Ctrl-C is the normal end: exit code 0.
        hint: Text for an interrupted run: the next step.
    """
    try:
        code = act() or DONE
        # Flush here: at the interpreter's exit a broken pipe could not be caught any more.
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except RunFailure as error:
        return _refuse(program, str(error), FAILED)
    except EdgeError as error:
        return _refuse(program, str(error), error.exit_code)
    except KeyboardInterrupt:
        return DONE if endless else _refuse(program, f"interrupted{hint}", INTERRUPTED)
    except BrokenPipeError:
        if not _left():
            raise
        return UNREAD


def _refuse(program: str, text: str, code: int) -> int:
    """Print an error line on stderr and return `code`."""
    try:
        print(f"{program}: {text}", file=sys.stderr)
    except BrokenPipeError:
        _left()
    return code


def _left() -> bool:
    """Return True if the reader of stdout or stderr is gone; redirect that stream to /dev/null.

    A BrokenPipeError may also come from another pipe, such as that of a child or a connection.
    """
    gone = False
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
        except (AttributeError, OSError, ValueError):
            continue
        poll = select.poll()
        poll.register(number, 0)
        if any(what & select.POLLERR for _, what in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            gone = True
    return gone
