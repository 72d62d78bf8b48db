"""The guard of this tier refuses what it shall refuse."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support import unit_guard


def _import_keras() -> None:
    # Another tier's tests may have imported it in this process.
    had = sys.modules.pop("keras", None)
    try:
        importlib.import_module("keras")
    finally:
        if had is not None:
            sys.modules["keras"] = had


@pytest.mark.parametrize(
    "act",
    [
        lambda: socket.socket(),  # noqa: PLW0108 - looked up when it runs, guarded
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda: os.fork(),  # noqa: PLW0108 - the same
        lambda: multiprocessing.get_context("fork").Process().start(),
        lambda: multiprocessing.get_context("spawn").Process().start(),
        _import_keras,
    ],
    ids=["socket", "connection", "subprocess", "fork", "forked", "spawned", "keras"],
)
def test_it_refuses(act: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="a unit test may not"):
        act()
    assert len(unit_guard.take_back()) == 1


def test_a_pair_within_the_process_is_let_through() -> None:
    for end in socket.socketpair():
        end.close()
