"""edge-agent update, typed where no agent runs: what it says, and what it refuses in one line."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.bundle.reader import load

Update = Callable[..., tuple[int, str, str]]


@pytest.fixture
def update(
    config_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Update:
    """`update("status", …)`: exit code, stdout, stderr."""
    config = config_file("embedded")
    monkeypatch.setattr(os, "nice", lambda step: 0)  # stays for the whole process: not here

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main(["update", *map(str, words), "--config", str(config)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def newer(tmp_path: Path, write_bundle: Callable[..., Path]) -> Path:
    return write_bundle(tmp_path / "newer", version=2)


def test_where_there_never_was_an_update(update: Update) -> None:
    assert update("status") == (0, "runs: the bundle of the configuration\n", "")
    code, out, _ = update("status", "--json")
    assert (code, json.loads(out)["phase"]) == (0, "idle")


def test_what_is_staged_is_shown_and_given_up_by_hand(update: Update, newer: Path) -> None:
    name = f"tiny version 2 ({load(newer).sha256[:12]})"
    shown = f"runs: the bundle of the configuration\nstaged: {name}, attempt 0\n"
    assert update("stage", newer) == (0, shown, "")
    assert update("status") == (0, shown, "")
    code, out, _ = update("rollback")
    assert code == 0
    assert f"last: {name} cancelled at 20" in out
    assert out.endswith("Z: by hand\n")


def test_staged_is_not_committed(update: Update, newer: Path) -> None:
    """Nobody is there to try it."""
    code, out, err = update("stage", newer, "--wait", "1")
    assert code == 1
    assert "staged: tiny version 2" in out
    assert err.startswith("edge-agent: update: tiny version 2")
    assert err.count("\n") == 1
    assert err.endswith("is not committed: it is staged; see edge-agent update status\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rollback",), "update: no bundle before this one is kept; stage the one you want\n"),
        (("stage", "nonesuch"), "nonesuch"),
    ],
)
def test_what_cannot_be_done_is_one_line(update: Update, words: tuple[str, ...], said: str) -> None:
    code, out, err = update(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_the_bundle_that_runs_is_not_staged(update: Update, tiny_bundle: Path) -> None:
    code, _, err = update("stage", tiny_bundle)
    assert code == 2
    assert err.endswith("is what runs; stage another bundle\n")


def test_another_who_stages_is_told_to_wait(tmp_path: Path, update: Update, newer: Path) -> None:
    folder = tmp_path / "state" / "update"
    folder.mkdir(parents=True)
    with (folder / "staging.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, _, err = update("stage", newer)
    assert code == 2
    assert err.endswith("staging.lock: another bundle is being staged; try again\n")
    assert update("stage", newer)[0] == 0
