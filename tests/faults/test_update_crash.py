"""The agent, or the command that stages, dies at each step of an update, and again at the next.

What comes after a crash depends on the disk alone. So of crashes that leave the same on it (a
record in all but its times, the same files) one is followed to its end.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.bundle.reader import load
from edge_agent.config import config as configs
from edge_agent.update.bundle_store import BundleStore
from edge_agent.update.record import UpdateRecord
from edge_agent.update.startup import to_run
from tests.support.paths import ROOT, SUPPORT

CRASHED = 99
PAIRS = os.environ.get("UPDATE_CRASH_PAIRS", "6")
"""So many pairs of steps, drawn by a seed that the test prints; "all" takes every one (minutes)."""

pytestmark = [pytest.mark.system, pytest.mark.faults]


class Victim:
    """A line of its own: `act` does something with it, and dies at step number `crash`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, config: Path) -> None:
        self._process, self._folder, self.path = process, folder, config
        self.config = configs.load(config)
        self.seen: set[Any] = set()

    def act(self, what: str, bundle: Path, crash: int | None = None) -> dict[str, Any]:
        request = {
            "act": what,
            "config": str(self.path),
            "bundle": str(bundle),
            "crash": crash,
            "steps": str(self._folder / "steps"),
            "summary": str(self._folder / "summary"),
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["code"] == (0 if crash is None else CRASHED), answer
        return answer

    def fresh(self, spare: Path | None = None) -> None:
        """As before all, or as it was when it was put aside."""
        shutil.rmtree(self.config.state_dir, ignore_errors=True)
        if spare:
            shutil.copytree(spare, self.config.state_dir)

    def aside(self, name: str) -> Path:
        spare = self.path.with_name(name)
        shutil.rmtree(spare, ignore_errors=True)
        return shutil.copytree(self.config.state_dir, spare)

    def left(self) -> Any:
        """What is on the disk and makes a difference to the next start."""
        update = self.config.state_dir / "update"
        record = BundleStore(self.config.state_dir).read()
        last = record.last and (record.last.result, record.last.bundle)
        files = [
            (str(path.relative_to(update)), path.stat().st_size if "record" not in path.name else 0)
            for path in sorted(update.rglob("*"))
            if path.is_file()
        ]
        ran = self.config.state_dir / "bundle-versions.json"
        return (
            msgspec.structs.replace(record, report=None, last=None),
            last,
            tuple(files),
            ran.read_bytes() if ran.exists() else b"",
        )

    def is_new(self) -> bool:
        """Whether no crash before left the same."""
        left = self.left()
        new = left not in self.seen
        self.seen.add(left)
        return new


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path]) -> Path:
    return write_bundle(tmp_path_factory.mktemp("newer") / "bundle", version=2, scale=44.0)


@pytest.fixture
def victim(tmp_path: Path, config_file: Callable[..., Path]) -> Iterator[Victim]:
    # Nobody listens there: what the agent says stays in its spool, where we read it.
    config = config_file(
        "mqtt://127.0.0.1:1",
        camera={"loop": True},
        update={"trial_frames": 3, "prove_frames": 3, "budget_ms": 60_000.0},
    )
    script = SUPPORT / "update_victim.py"
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with process:
        yield Victim(process, tmp_path, config)
        process.kill()


def judged_by(state_dir: Path) -> dict[str, list[int]]:
    """Of each run, the versions that judged its defective frames, in the order of the frames."""
    found: dict[str, list[tuple[int, int]]] = {}
    with sqlite3.connect(f"file:{state_dir / 'spool.sqlite3'}?mode=ro", uri=True) as reader:
        rows = reader.execute("SELECT payload FROM outbox ORDER BY id").fetchall()
    for (payload,) in rows:
        data = json.loads(payload)["data"]
        if "bundle" in data:
            found.setdefault(data["boot_id"], []).append(
                (data["frame_id"], data["bundle"]["version"])
            )
    return {boot: [version for _, version in sorted(seen)] for boot, seen in found.items()}


def is_old_or_new(victim: Victim) -> None:
    """At any moment the next start has a whole bundle, and it is one of the two."""
    folder, _ = to_run(victim.config)
    assert load(folder or Path(victim.config.agent.bundle)).manifest.version in (1, 2)


def ends_well(victim: Victim, newer: Path) -> None:
    """Left alone after the crash, the line runs, and the update comes to its end."""
    staged = BundleStore(victim.config.state_dir).read() != UpdateRecord()
    done = victim.act("run", newer)
    record = BundleStore(victim.config.state_dir).read()
    assert record.phase == "idle"
    summary = done["summary"]
    assert summary["frames_in_progress"] == 0
    assert summary["gaps"] == {}  # the camera waits: nothing may be lost
    assert summary["frames_captured"] == summary["frames_inspected"] > 0
    assert summary["lines_inspected"] == 256 * summary["frames_captured"]
    assert summary["bundle"]["version"] == (2 if staged else 1)
    if staged:
        assert record.last is not None
        assert record.last.result == "committed", record
    for versions in judged_by(victim.config.state_dir).values():
        # One frame from which all are the new one's.
        assert versions == sorted(versions)
        assert set(versions) <= {1, 2}
    assert not (victim.config.state_dir / "update" / "incoming").exists()
    kept = {path.name for path in (victim.config.state_dir / "update" / "store").iterdir()}
    assert kept == record.kept


def whole(victim: Victim, newer: Path, *, each_file: bool) -> tuple[list[tuple[str, int]], Path]:
    """Every step of an update that nothing disturbs: which process takes it, and its number; and
    the state folder as it is when the bundle is staged.

    Without `each_file` only the last of the files that are copied, and the last frame looked at.
    """
    victim.fresh()
    steps = []
    for what in ("stage", "run"):
        taken = victim.act(what, newer)["steps"]
        if what == "stage":
            staged = victim.aside("staged")
        kinds = [step.split()[0] for step in taken]
        steps += [
            (what, number)
            for number, kind in enumerate(kinds)
            if each_file or kind not in ("copy", "looked") or kinds[number + 1] != kind
        ]
    assert BundleStore(victim.config.state_dir).read().active is not None
    return steps, staged


def die_at(victim: Victim, newer: Path, step: tuple[str, int], staged: Path) -> None:
    what, number = step
    victim.fresh(staged if what == "run" else None)
    victim.act(what, newer, crash=number)
    is_old_or_new(victim)


@pytest.mark.timeout(900)
def test_a_crash_at_each_step_ends_in_the_old_or_the_new(victim: Victim, newer: Path) -> None:
    steps, staged = whole(victim, newer, each_file=False)
    assert len(steps) > 20
    for step in steps:
        die_at(victim, newer, step, staged)
        if victim.is_new():
            ends_well(victim, newer)
    assert len(victim.seen) > 10


def _pairs(victim: Victim, newer: Path, rng: random.Random | None) -> int:
    steps, staged = whole(victim, newer, each_file=rng is None)
    done = 0
    firsts: set[Any] = set()
    # Of those drawn each may leave nothing to disturb: draw until there are enough.
    for step in iter(lambda: rng.choice(steps), None) if rng else steps:
        if rng and done == int(PAIRS):
            break
        die_at(victim, newer, step, staged)
        left = victim.left()
        if left[0] == UpdateRecord() or (rng is None and left in firsts):
            continue  # there is no update whose steps could be disturbed; or the same one
        firsts.add(left)
        spare = victim.aside("spare")
        taken = len(victim.act("run", newer)["steps"])
        for second in [rng.randrange(taken)] if rng and taken else range(taken):
            victim.fresh(spare)
            victim.act("run", newer, crash=second)
            is_old_or_new(victim)
            if victim.is_new():
                ends_well(victim, newer)
            done += 1
    print(f"{done} pairs, {len(victim.seen)} states of the disk followed to their end")
    return done


@pytest.mark.long
@pytest.mark.timeout(7200 if PAIRS == "all" else 900)
def test_two_crashes_end_in_the_old_or_the_new(victim: Victim, newer: Path) -> None:
    if PAIRS == "all":
        assert _pairs(victim, newer, None) > 150
        return
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    assert _pairs(victim, newer, random.Random(seed)) == int(PAIRS)


def test_a_bundle_whose_starts_crash_is_given_up(victim: Victim, newer: Path) -> None:
    """It dies right after the switch, each time: by the fourth start the old one runs."""
    victim.act("stage", newer)
    steps = victim.act("run", newer)["steps"]
    used = steps.index("used")
    victim.fresh()
    victim.act("stage", newer)
    victim.act("run", newer, crash=used)
    seen = []
    for _ in range(3):
        # The start is counted before the bundle is loaded; the first step after that is deadly.
        answer = victim.act("run", newer, crash=2)
        seen.append(answer["steps"])
        is_old_or_new(victim)
    counted = ["write proving", "replace proving", "written proving"]
    assert seen == [counted] * 3
    done = victim.act("run", newer)
    record = BundleStore(victim.config.state_dir).read()
    assert record.last is not None
    assert (record.last.result, record.last.reason) == ("rolled_back", "the agent crashed 4 times")
    assert done["summary"]["bundle"]["version"] == 1
    assert record.active is not None
    assert record.kept == {record.active.sha256}
