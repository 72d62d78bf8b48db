"""What all five command lines have in common: their help, --json, --version, and how they end.

A mistake is one line on standard error, `program: field: value; fix`, and an exit code:
0 done, 1 failed after the start, 2 refused at the start. 130 is for Ctrl-C, 141 for a reader of
the output that has left (`edge-agent tail ... | head`), as for any program that ends so.
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
    """Carries an EdgeError raised after the start, so that the exit code is 1."""


def parser(
    program: str, text: str, examples: str, *, usage: str | None = None
) -> argparse.ArgumentParser:
    """The parser of a whole command line; `examples` keep their lines."""
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
    parser.add_argument("--json", action="store_true", help=text)


def run(
    program: str,
    act: Callable[[], int | None],
    *,
    endless: bool = False,
    hint: str = "",
) -> int:
    """Do `act` and say how it ended; the exit code.

    `endless`: Ctrl-C is the usual end. `hint` says what an interrupted run can do next.
    """
    try:
        code = act() or DONE
        # Here and not when the interpreter ends: there nobody could catch that the reader has left.
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
    try:
        print(f"{program}: {text}", file=sys.stderr)
    except BrokenPipeError:
        _left()
    return code


def _left() -> bool:
    """Whether nobody reads our output; what is left of it then goes nowhere, without a complaint.

    A broken pipe can be another one: of a child, or a connection.
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
