"""Quiet terminal: our own output is shown, that of the libraries goes to a log.

TensorFlow, oneDNN, XNNPACK and absl write to file descriptors 1 and 2, partly before they read any
setting. During a command both lead to a file, `sys.stdout` and `sys.stderr` to the former targets.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import io
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from edge_agent.errors import EdgeError

_SHOWN_LINES = 40

# A process that aborts, or that the kernel kills for its memory, cannot report it. Another process
# waits for its end, in a session of its own, which Ctrl-C does not reach.
_WATCH = f"""\
read -r word
[ "$word" = done ] && exit
[ -s "$1" ] || {{ rm -f "$1"; exit; }}
echo "$2: ended by force; the end of what its libraries said (all of it: $1):" >&2
tail -n {_SHOWN_LINES} "$1" | cut -c -300 >&2
"""


def verbose_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --verbose to a parser."""
    parser.add_argument(
        "--verbose", action="store_true", help="keep what the libraries print, in a log; says where"
    )


@contextlib.contextmanager
def quiet(program: str, *, verbose: bool = False) -> Iterator[None]:
    """Show only output through `sys.stdout` and `sys.stderr` on the terminal, inside the context.

    With `verbose` the log is kept. Otherwise it is kept, and its end shown, only if the process
    dies or raises an exception other than EdgeError.
    """
    # A requested log takes all output; otherwise only messages that explain a failure.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "2")
    number, name = tempfile.mkstemp(prefix=f"{program}-", suffix=".log")
    log, kept = Path(name), verbose
    watch = _watch(program, log)
    try:
        with _redirected(number), _logged(log, number, verbose):
            yield
    except (EdgeError, BrokenPipeError):
        raise
    except Exception:
        kept = _show_end(program, log) or verbose
        raise
    finally:
        os.close(number)
        _dismiss(watch)
        if not kept:
            log.unlink(missing_ok=True)
        elif verbose:
            print(f"{program}: what the libraries said: {log}", file=sys.stderr)


@contextlib.contextmanager
def _redirected(number: int) -> Iterator[None]:
    """Redirect file descriptors 1 and 2 to `number`, our own streams to their former targets."""
    _flush()
    before = {one: os.dup(one) for one in (1, 2) if _is_open(one)}
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = ours = tuple(_moved(one, before) for one in streams)
    for one in before:
        os.dup2(number, one)
    broken: BrokenPipeError | None = None
    try:
        yield
    finally:
        _flush()
        sys.stdout, sys.stderr = streams
        for one, old in before.items():
            os.dup2(old, one)
            os.close(old)
        for stream, old_stream in zip(ours, streams, strict=True):
            if stream is not old_stream:
                try:
                    stream.close()
                except BrokenPipeError as error:
                    broken = error
    if broken is not None:
        raise broken


def _moved(stream: TextIO, before: dict[int, int]) -> TextIO:
    """Return a stream on the copy of its descriptor, or the same stream if it leads elsewhere."""
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or replaced by a test
        return stream
    if number not in before:
        return stream
    return io.TextIOWrapper(
        os.fdopen(os.dup(before[number]), "wb"),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=number == 2 or stream.isatty(),
    )


@contextlib.contextmanager
def _logged(log: Path, number: int, verbose: bool) -> Iterator[None]:
    """Send Python's loggers and warnings to the log as well, and the stack of a fatal signal."""
    root = logging.getLogger()
    # TensorFlow and tf2onnx add a handler of their own only if the root logger has none.
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level = root.level
    root.addHandler(handler)
    if verbose:
        root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    stack = not faulthandler.is_enabled()
    if stack:
        faulthandler.enable(number)
    try:
        yield
    finally:
        if stack:
            faulthandler.disable()
        logging.captureWarnings(False)
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()


def _watch(program: str, log: Path) -> subprocess.Popen[bytes] | None:
    command = ["/bin/sh", "-c", _WATCH, "sh", str(log), program]
    try:
        return subprocess.Popen(  # noqa: S603 - the script above, no external input
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:  # no shell: a crash stays silent
        return None


def _dismiss(watch: subprocess.Popen[bytes] | None) -> None:
    if watch is not None:
        with contextlib.suppress(BrokenPipeError):
            watch.communicate(b"done\n")


def _show_end(program: str, log: Path) -> bool:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
    if lines:
        print(f"{program}: failed; the end of what its libraries said ({log}):", file=sys.stderr)
        print("\n".join(line[:300] for line in lines), file=sys.stderr)
    return bool(lines)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, BrokenPipeError):
            stream.flush()
    # C's printf has a buffer of its own.
    ctypes.CDLL(None).fflush(None)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
