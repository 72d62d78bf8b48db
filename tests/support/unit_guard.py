"""What a unit test may not do: open a socket, start a process, import TensorFlow.

Any of these fails the test, also where the code under test would have handled an error.
"""

from __future__ import annotations

import importlib.abc
import multiprocessing.util
import socket
import sys
from collections.abc import Generator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# Imported before the guard stands: numpy.testing starts lscpu when it is imported.
import numpy.testing  # noqa: F401
import pytest

from tests.support.paths import ROOT

_UNIT = ROOT / "tests" / "unit"
_HEAVY = ("tensorflow", "keras", "tf_keras")
_PROCESSES = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system")

_forbidden: list[str] | None = None
"""What the running unit test did so far that it may not; None while no unit test runs."""


def _refuse(act: str) -> None:
    assert _forbidden is not None
    _forbidden.append(act)
    raise RuntimeError(f"a unit test may not {act}; see tests/README.md")


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _forbidden is None:
        return
    if event in _PROCESSES:
        _refuse(f"start a process ({event})")
    # A socketpair stays within the process: the scripted camera holds one as a driver would, and
    # each event loop of asyncio has one. Its family is AF_UNIX, and nothing binds or connects it.
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto"):
        _refuse(f"open a socket ({event})")
    if event == "socket.__new__" and arguments[1] != socket.AF_UNIX:
        _refuse("open a socket")


# An audit hook sees what C code does too, and cannot be taken away; it is quiet outside unit tests.
sys.addaudithook(_audit)


class _NoHeavyImports(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if _forbidden is not None and name.partition(".")[0] in _HEAVY:
            _refuse(f"import {name}")
        return None


sys.meta_path.insert(0, _NoHeavyImports())


def _is_unit(path: Path) -> bool:
    return _UNIT in path.parents


_spawn = multiprocessing.util.spawnv_passfds


def _guarded_spawn(*arguments: Any) -> int:
    if _forbidden is not None:
        _refuse("start a process (multiprocessing)")
    return int(_spawn(*arguments))


# The one way to a process that the interpreter does not report: spawn and forkserver.
multiprocessing.util.spawnv_passfds = _guarded_spawn  # type: ignore[assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Guard the fixtures of a unit test as well as its body."""
    global _forbidden  # noqa: PLW0603 - one guard a process
    _forbidden = [] if _is_unit(item.path) else None
    try:
        return (yield)
    finally:
        _forbidden = None


def take_back() -> list[str]:
    """Return what the running unit test was refused, and forget it."""
    assert _forbidden is not None
    refused, _forbidden[:] = list(_forbidden), []
    return refused


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    result = yield
    # An `except` in the code under test must not hide it.
    if _forbidden:
        pytest.fail(f"a unit test may not {_forbidden[0]}; see tests/README.md")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Guard the import of a unit test's file."""
    global _forbidden  # noqa: PLW0603 - one guard a process
    path = collector.path
    _forbidden = [] if path.is_file() and _is_unit(path) else None
    try:
        return (yield)
    finally:
        _forbidden = None
