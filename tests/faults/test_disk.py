"""A disk that is slow, full, read-only or broken under an agent that runs: the line goes on.

The disk's part is played by a library that is put between the agent and its system calls: of all
the ways to break a disk, the only one that needs neither root nor a disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import SUPPORT

SOURCE = SUPPORT / "faultydisk.c"

pytestmark = [pytest.mark.system, pytest.mark.faults]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (`make test` brings it)")
    made = tmp_path_factory.mktemp("shim") / "faultydisk.so"
    command = [compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", made, SOURCE, "-ldl"]
    subprocess.run(command, check=True)
    return made


class Line:
    """An agent on a slow simulated strip, its broker, and the disk's switch."""

    def __init__(self, switch: Path, process: Any, heard: Any) -> None:
        self._switch, self.process, self.heard = switch, process, heard

    def disk(self, fault: str) -> None:
        part = self._switch.with_name("part")
        part.write_text(fault, encoding="ascii")
        part.replace(self._switch)

    def health(self) -> dict[str, Any]:
        found = self.heard.of("health")
        return found[-1].json() if found else {"spool": "", "frames_inspected": 0, "alarms": []}


@pytest.fixture
def line(
    tmp_path: Path,
    shim: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
) -> Line:
    config = config_file(
        mosquitto.url,
        camera={"kind": "simulated", "width_px": 800, "seed": 7, "defects_per_m": 15, "speed": 0.5},
        queues={"frames": 200},  # so that only a wait of inference for the disk could cost a frame
        health={"interval_s": 0.5},
    )
    heard = subscriber(mosquitto.port)
    switch = tmp_path / "disk"
    process = agent(config, LD_PRELOAD=str(shim), FAULTY_DISK=str(switch))
    heard.wait("event", 3)
    return Line(switch, process, heard)


def _judge(line: Line) -> None:
    """In good order, no frame lost, and every message with the subscriber or declared."""
    line.process.terminate()
    ended = line.process.ended()
    assert ended.code == 0, ended.stderr
    summary = ended.summary
    assert summary["frames_inspected"] == summary["frames_captured"] > 5
    assert summary["frames_in_progress"] == 0
    assert summary["gaps"] == {}
    line.heard.wait("state", 2)
    seqs = list(dict.fromkeys(data["seq"] for data in line.heard.numbered()))
    left = _left(line.process, summary)
    assert [*seqs, *left] == list(range(1, summary["events_spooled"] + 1))


def _left(process: Any, summary: dict[str, Any]) -> range:
    """What the end of the run left in the spool for the next one."""
    count = summary["messages_pending"]
    return range(summary["events_spooled"] - count + 1, summary["events_spooled"] + 1)


def test_a_slow_disk_holds_up_no_frame(line: Line, eventually: Callable[..., Any]) -> None:
    line.disk("slow")
    count = line.health()["frames_inspected"]
    eventually(lambda: line.health()["frames_inspected"] > count + 20, "frames go on")
    published = len(line.heard.of("event"))
    eventually(lambda: len(line.heard.of("event")) > published + 3, "events go on")
    _judge(line)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
def test_a_disk_that_fails_holds_up_no_frame_and_is_used_again(
    line: Line, number: int, eventually: Callable[..., Any]
) -> None:
    line.disk(str(number))
    eventually(lambda: line.health()["spool"] == "memory", "the spool in memory")
    assert any("the disk fails" in alarm for alarm in line.health()["alarms"])
    published = len(line.heard.of("event"))
    eventually(lambda: len(line.heard.of("event")) > published + 3, "events go on")
    line.disk("")
    eventually(lambda: line.health()["spool"] == "disk", "back on the disk", 60)
    assert line.health()["alarms"] == []
    _judge(line)


def test_a_disk_that_fails_for_good_lets_the_run_end_in_good_order(
    line: Line, eventually: Callable[..., Any]
) -> None:
    line.disk(str(errno.EIO))
    eventually(lambda: line.health()["spool"] == "memory", "the spool in memory")
    _judge(line)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "linegate-test", str(folder)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("we may not mount here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_an_agent_starts_on_a_disk_that_takes_nothing(
    small_disk: Path,
    how: str,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
) -> None:
    """After a fault of the disk a machine comes up so; the strip runs all the same."""
    if how == "full":
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", 0) as filler:
            while True:
                filler.write(bytes(512))
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    heard = subscriber(mosquitto.port)
    config = config_file(mosquitto.url, agent={"state_dir": str(small_disk / "state")})
    ended = agent(config).ended()
    assert ended.code == 0, ended.stderr
    assert ended.summary["frames_inspected"] == 24
    assert ended.summary["spool"] == "memory"
    heard.wait("state", 2)
    seqs = list(dict.fromkeys(data["seq"] for data in heard.numbered()))
    assert seqs == list(range(1, ended.summary["events_spooled"] + 1))
    assert len(seqs) > 5


def test_the_shim_is_one(shim: Path, tmp_path: Path) -> None:
    """A test of faults that never happen would pass too."""
    switch = tmp_path / "disk"
    code = (
        "import os; f = os.open('spool.sqlite3', os.O_RDWR | os.O_CREAT)\n"
        "try: os.pwrite(f, b'x', 0); print('written')\n"
        "except OSError as e: print(e.errno)"
    )
    environment = {**os.environ, "LD_PRELOAD": str(shim), "FAULTY_DISK": str(switch)}
    for fault, said in (("", "written"), (str(errno.EROFS), str(errno.EROFS))):
        switch.write_text(fault, encoding="ascii")
        done = subprocess.run(
            ["python3", "-c", code],
            check=False,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == said, done.stderr
