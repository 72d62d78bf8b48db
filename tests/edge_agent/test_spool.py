"""The spool: what was handed over is there afterwards, whatever happens to process and disk."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_agent.spool import Message, Spool, Stored

ROOT = Path(__file__).resolve().parents[2]
PLENTY = 1 << 30
ALL = 1 << 20


def _message(number: int, size: int = 6, kind: str = "event") -> Message:
    return Message(kind, "boot", b"%06d" % number + b"x" * (size - 6))


def _number(message: Message) -> int:
    return int(message.payload[:6])


def _numbers(stored: Sequence[Stored]) -> list[int]:
    return [_number(one.message) for one in stored]


def _on_disk(path: Path) -> list[int]:
    """What the next start of the agent finds."""
    spool = Spool(path, PLENTY)
    try:
        assert spool.medium == "disk"
        return _numbers(spool.after(0, ALL))
    finally:
        spool.close()


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.corrupt-*"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool.sqlite3"  # the folder is made when needed


# Order and bookkeeping.


def test_messages_come_in_the_order_they_were_appended(path: Path) -> None:
    spool = Spool(path, PLENTY)
    assert spool.append([_message(1), _message(2, kind="gap")]) == ()
    assert spool.append([_message(3)]) == ()
    found = spool.after(0, ALL)
    assert [one.message for one in found] == [_message(1), _message(2, kind="gap"), _message(3)]
    assert [one.id for one in found] == sorted(one.id for one in found)
    assert len(spool) == 3
    assert spool.last_id == found[-1].id
    spool.close()


def test_after_reads_on_from_an_id(path: Path) -> None:
    spool = Spool(path, PLENTY)
    spool.append([_message(n) for n in range(10)])
    cursor, seen = 0, []
    while found := spool.after(cursor, 3):
        assert len(found) <= 3
        cursor = found[-1].id
        seen += _numbers(found)
    assert seen == list(range(10))
    assert spool.after(0, 0) == ()
    assert spool.after(spool.last_id, ALL) == ()
    spool.close()


def test_delete_takes_only_what_is_named(path: Path) -> None:
    spool = Spool(path, PLENTY)
    spool.append([_message(n) for n in range(6)])
    ids = [one.id for one in spool.after(0, ALL)]
    spool.delete([ids[1], ids[4]])
    spool.delete([ids[1], 10**9])  # gone already, never there
    spool.delete([])
    assert _numbers(spool.after(0, ALL)) == [0, 2, 3, 5]
    assert len(spool) == 4
    spool.close()


def test_an_empty_spool(path: Path) -> None:
    spool = Spool(path, PLENTY)
    assert (len(spool), spool.last_id, spool.medium) == (0, 0, "disk")
    assert spool.after(0, ALL) == ()
    assert spool.append([]) == ()
    assert path.is_file()
    spool.close()


def test_any_payload_comes_back_as_it_was(path: Path) -> None:
    payloads = [b"", b"\0", bytes(range(256)), "größer".encode(), b"x" * 300_000]
    spool = Spool(path, PLENTY)
    spool.append([Message("event", "böot", payload) for payload in payloads])
    spool.close()
    spool = Spool(path, PLENTY)
    assert [one.message.payload for one in spool.after(0, ALL)] == payloads
    assert {one.message.boot_id for one in spool.after(0, ALL)} == {"böot"}
    spool.close()


def test_it_survives_a_restart_and_never_uses_an_id_twice(path: Path) -> None:
    spool = Spool(path, PLENTY)
    spool.append([_message(n) for n in range(4)])
    last = spool.last_id
    spool.delete([last])
    spool.close()
    spool = Spool(path, PLENTY)
    assert len(spool) == 3
    spool.append([_message(9)])
    assert spool.last_id > last
    assert _numbers(spool.after(0, ALL)) == [0, 1, 2, 9]
    spool.close()


# Bounds.


def test_the_oldest_give_way_and_are_returned(path: Path) -> None:
    spool = Spool(path, 100)
    assert spool.append([_message(n, 20) for n in range(5)]) == ()
    assert spool.append([_message(5, 20)]) == (_message(0, 20),)
    assert spool.append([_message(6, 60)]) == (_message(1, 20), _message(2, 20), _message(3, 20))
    assert _numbers(spool.after(0, ALL)) == [4, 5, 6]
    assert len(spool) == 3
    spool.close()


def test_the_newest_stays_even_if_it_is_too_large(path: Path) -> None:
    spool = Spool(path, 100)
    spool.append([_message(0, 20)])
    assert spool.append([_message(1, 5000)]) == (_message(0, 20),)
    assert _numbers(spool.after(0, ALL)) == [1]
    assert spool.append([_message(2, 20)]) == (_message(1, 5000),)
    spool.close()


def test_a_batch_larger_than_the_spool_keeps_its_end(path: Path) -> None:
    spool = Spool(path, 100)
    gone = spool.append([_message(n, 30) for n in range(10)])
    assert [_number(message) for message in gone] == list(range(7))
    assert _numbers(spool.after(0, ALL)) == [7, 8, 9]
    spool.close()


def test_what_was_deleted_makes_room(path: Path) -> None:
    spool = Spool(path, 100)
    spool.append([_message(n, 20) for n in range(5)])
    spool.delete([one.id for one in spool.after(0, 2)])
    assert spool.append([_message(5, 20), _message(6, 20)]) == ()
    spool.close()


def test_after_a_restart_the_bound_counts_what_was_there(path: Path) -> None:
    spool = Spool(path, 100)
    spool.append([_message(n, 20) for n in range(5)])
    spool.close()
    spool = Spool(path, 60)  # and the config now allows less
    gone = spool.append([_message(5, 20)])
    assert [_number(message) for message in gone] == [0, 1, 2]
    spool.close()


class SpoolMachine(RuleBasedStateMachine):
    """A list is what the spool promises to be."""

    MAX_BYTES = 300

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool.sqlite3"
        self.spool = Spool(self.path, self.MAX_BYTES)
        self.model: list[Message] = []
        self.highest = 0

    def ids(self) -> list[int]:
        return [one.id for one in self.spool.after(0, ALL)]

    @rule(
        messages=st.lists(
            st.builds(
                Message,
                kind=st.sampled_from(("event", "gap")),
                boot_id=st.sampled_from(("a", "b")),
                payload=st.binary(max_size=120),
            ),
            max_size=5,
        )
    )
    def append(self, messages: list[Message]) -> None:
        before = set(self.ids())
        self.model += messages
        expected = []
        while sum(len(m.payload) for m in self.model) > self.MAX_BYTES and len(self.model) > 1:
            expected.append(self.model.pop(0))
        assert self.spool.append(messages) == tuple(expected)
        new = [i for i in self.ids() if i not in before]
        assert all(i > self.highest for i in new)
        self.highest = max([self.highest, *new])

    @rule(picks=st.sets(st.integers(0, 12)), unknown=st.lists(st.integers(10**6, 10**7)))
    def delete(self, picks: set[int], unknown: list[int]) -> None:
        ids = self.ids()
        self.spool.delete([*(ids[p] for p in picks if p < len(ids)), *unknown])
        self.model = [m for at, m in enumerate(self.model) if at not in picks]

    @rule(at=st.integers(0, 12), limit=st.integers(0, 12))
    def read(self, at: int, limit: int) -> None:
        ids = [0, *self.ids()]
        at = min(at, len(ids) - 1)
        found = self.spool.after(ids[at], limit)
        assert [one.message for one in found] == self.model[at : at + limit]

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = Spool(self.path, self.MAX_BYTES)

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        found = self.spool.after(0, ALL)
        assert [one.message for one in found] == self.model
        ids = [one.id for one in found]
        assert ids == sorted(set(ids))
        assert len(self.spool) == len(self.model)
        assert self.spool.last_id == max(ids, default=0)
        assert self.spool.medium == "disk"

    def teardown(self) -> None:
        self.spool.close()
        self.folder.cleanup()


TestAgainstAList = SpoolMachine.TestCase
TestAgainstAList.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


# A process that is killed.

_APPENDS_UNTIL_KILLED = """
import sys
from pathlib import Path
from edge_agent.spool import Message, Spool

spool = Spool(Path(sys.argv[1]), 1 << 30)
print("open", flush=True)
number = 0
while True:
    number += 1
    spool.append([Message("event", "boot", b"%06d" % number + bytes(number * 37 % 5000))])
    print("+", number, flush=True)
    if number % 3 == 0:
        spool.delete([spool.last_id])
        print("-", number, flush=True)
"""


def _child(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        # Not the file that pytest captures into: a child on a full disk could not write there.
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _run_until_killed(path: Path, line_count: int) -> tuple[list[int], list[int]]:
    """What a child had said to have appended and deleted when it was killed."""
    with _child(_APPENDS_UNTIL_KILLED, path) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(line_count)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    assert lines[0] == "open\n"
    words = [line.split() for line in lines[1:] if line.endswith("\n")]
    return (
        [int(number) for sign, number in words if sign == "+"],
        [int(number) for sign, number in words if sign == "-"],
    )


@pytest.mark.faults
@pytest.mark.parametrize("line_count", [2, 30, 150])
def test_what_was_appended_survives_kill_9(path: Path, line_count: int) -> None:
    appended, deleted = _run_until_killed(path, line_count)
    assert len(appended) + len(deleted) >= line_count - 1
    found = _on_disk(path)
    assert found == sorted(found)
    # One more may be there that it had no time to speak of, or gone that it was deleting.
    last = appended[-1]
    assert set(appended) - set(deleted) - {last} <= set(found)
    assert set(found) <= set(appended) - set(deleted) | {last + 1}
    if last % 3:
        assert last in found
    assert _set_aside(path) == []


# A log that is torn. What follows is on the disk as a power cut may leave it.


@dataclass(frozen=True, slots=True)
class _Written:
    database: bytes
    log: bytes
    ends: tuple[int, ...]
    """Size of the log after each append."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> _Written:
    path = tmp_path_factory.mktemp("written") / "spool.sqlite3"
    log = path.with_name("spool.sqlite3-wal")
    spool = Spool(path, PLENTY)
    sizes = random.Random(1)
    ends = []
    for number in range(40):
        spool.append([_message(number, sizes.randrange(6, 9000))])
        ends.append(log.stat().st_size)
    found = _Written(path.read_bytes(), log.read_bytes(), tuple(ends))
    spool.close()
    assert len(found.log) == ends[-1]
    return found


@pytest.mark.faults
@given(
    share=st.floats(0, 1),
    length=st.integers(1, 20_000),
    how=st.sampled_from(("cut", "zero", "garble", "flip")),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_a_torn_log_loses_nothing_that_lies_before_the_tear(
    written: _Written, share: float, length: int, how: str, seed: int
) -> None:
    at = round(share * len(written.log))
    log = bytearray(written.log)
    if how == "cut":
        del log[at:]
    else:
        part = slice(at, min(at + length, len(log)))
        size = len(log[part])
        if how == "zero":
            log[part] = bytes(size)
        elif how == "garble":
            log[part] = random.Random(seed).randbytes(size)
        elif size:
            log[at] ^= 1 << seed % 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.sqlite3"
        path.write_bytes(written.database)
        path.with_name("spool.sqlite3-wal").write_bytes(log)
        spool = Spool(path, PLENTY)
        found = spool.after(0, ALL)
        committed = sum(end <= at for end in written.ends)
        # All from before the tear, no hole, and of the rest nothing that is not whole.
        assert _numbers(found) == list(range(len(found)))
        assert len(found) >= committed
        assert len(spool) == len(found)
        assert spool.medium == "disk"
        assert _set_aside(path) == []
        spool.append([_message(99)])
        spool.close()
        assert _on_disk(path) == [*range(len(found)), 99]


# A file that cannot be used.


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database\n" * 500)


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _zeroed_pages(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(size - 4096))


def _damaged_overflow(path: Path) -> None:
    # A page that holds the rest of a long payload: counting does not read it.
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xff" * 4096)


def _damaged_schema(path: Path) -> None:
    data = path.read_bytes()
    assert b"NOT NULL" in data
    # SQLite quotes it in its complaint, which then is not UTF-8.
    path.write_bytes(data.replace(b"NOT NULL", b"NOT \xa2ULL"))


@pytest.mark.faults
@pytest.mark.parametrize(
    "damage", [_garbage, _half, _zeroed_pages, _damaged_overflow, _damaged_schema]
)
def test_a_corrupt_file_is_set_aside_and_a_new_one_begun(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(path, PLENTY)
    spool.append([_message(n, 9000) for n in range(20)])
    spool.close()
    damage(path)
    damaged = path.read_bytes()
    with caplog.at_level(logging.ERROR):
        spool = Spool(path, PLENTY)
    assert spool.medium == "disk"
    assert len(spool) == 0
    (aside,) = _set_aside(path)
    assert aside.read_bytes() == damaged
    assert aside.name in caplog.text
    spool.append([_message(7)])
    spool.close()
    assert _on_disk(path) == [7]


def test_an_empty_file_is_a_new_spool(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    spool = Spool(path, PLENTY)
    spool.append([_message(1)])
    spool.close()
    assert _on_disk(path) == [1]
    assert _set_aside(path) == []


@pytest.fixture
def failing(path: Path) -> Spool:
    """An open spool whose file has become unreadable since."""
    spool = Spool(path, PLENTY)
    spool.append([_message(n, 50_000) for n in range(100)])  # more than SQLite's cache
    spool.close()
    spool = Spool(path, 4_000_000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(0).randbytes(size - 4096))
    return spool


@pytest.mark.faults
@pytest.mark.parametrize(
    "use",
    [
        lambda spool: spool.after(0, ALL),
        lambda spool: spool.after(50, 1),
        lambda spool: spool.delete([50]),
        lambda spool: spool.delete(range(1, 101)),
        lambda spool: spool.append([_message(1, 500_000)]),
        lambda spool: spool.last_id,
    ],
)
def test_a_disk_that_fails_in_the_middle_raises_nothing(
    failing: Spool, use: Callable[[Spool], object], caplog: pytest.LogCaptureFixture
) -> None:
    use(failing)
    use(failing)
    # Sooner or later it is in memory, and goes on from there.
    failing.after(0, ALL)
    assert failing.medium == "memory"
    cursor = failing.last_id
    failing.append([_message(7)])
    assert _numbers(failing.after(cursor, ALL)) == [7]
    assert "going on in memory" in caplog.text
    failing.close()


# A disk that cannot be used.


def _below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "state" / "spool.sqlite3"


def _a_folder_of_that_name(folder: Path) -> Path:
    path = folder / "spool.sqlite3"
    path.mkdir()
    return path


def _read_only_folder(folder: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    folder.chmod(0o500)
    return folder / "spool.sqlite3"


@pytest.mark.faults
@pytest.mark.parametrize("make", [_below_a_file, _a_folder_of_that_name, _read_only_folder])
def test_without_a_disk_it_goes_on_in_memory(
    tmp_path: Path, make: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    spool = Spool(make(folder), 100)
    assert spool.medium == "memory"
    assert "going on in memory" in caplog.text
    # The same spool otherwise, and as bounded.
    assert spool.append([_message(n, 20) for n in range(6)]) == (_message(0, 20),)
    found = spool.after(0, ALL)
    assert _numbers(found) == [1, 2, 3, 4, 5]
    spool.delete([found[0].id])
    assert len(spool) == 4
    spool.close()
    folder.chmod(0o700)
    assert not list(tmp_path.rglob("*corrupt*"))


# RLIMIT_FSIZE is a disk that is full, for one process alone.
_DISK_FILLS_UP = """
import json, resource, sys
from pathlib import Path
from edge_agent.spool import Message, Spool

spool = Spool(Path(sys.argv[1]), 1 << 30)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
cursor, seen, media = 0, [], []
for number in range(120):
    spool.append([Message("event", "boot", b"%06d" % number + bytes(5000))])
    for stored in spool.after(cursor, 10):
        cursor = stored.id
        seen.append(int(stored.message.payload[:6]))
    media.append(spool.medium)
before = spool.after(0, 1 << 20)
spool.delete(range(1, 121))  # acknowledgements of what went out from the disk
print(json.dumps([media, seen, len(before) - len(spool)]))
"""


@pytest.mark.faults
def test_a_disk_that_fills_up_loses_nothing(path: Path) -> None:
    with _child(_DISK_FILLS_UP, path) as child:
        output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    media, seen, wrongly_deleted = json.loads(output)
    assert media[0] == "disk"
    assert media[-1] == "memory"
    # Who reads on from the last id misses none where the medium changes.
    assert seen == list(range(120))
    assert wrongly_deleted == 0
    # What had gone to the disk before is sent again after a restart.
    assert _on_disk(path) == list(range(media.index("memory")))


_DISK_IS_NEARLY_FULL = """
import json, resource, sys
from pathlib import Path
from edge_agent.spool import Message, Spool

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
found = []
for pages in range(30):
    path = Path(sys.argv[1]) / str(pages)
    spool = Spool(path, 60_000)
    for number in range(6):
        spool.append([Message("event", "boot", b"%06d" % number + bytes(9994))])
    room = path.with_name(path.name + "-wal").stat().st_size + pages * 4120
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    gone = spool.append([Message("event", "boot", b"000006" + bytes(9994))])
    left = spool.after(0, 100)
    numbers = [int(m.payload[:6]) for m in (*gone, *(one.message for one in left))]
    found.append([spool.medium, len(gone), len(spool) == len(left), numbers])
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    spool.close()
print(json.dumps(found))
"""


@pytest.mark.faults
def test_a_disk_with_room_for_a_message_but_not_for_a_deletion(tmp_path: Path) -> None:
    with _child(_DISK_IS_NEARLY_FULL, tmp_path) as child:
        output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    ends = set()
    for medium, gone, counted, numbers in json.loads(output):
        assert counted
        # On the disk none is lost unsaid; in memory there is the one that found no room.
        assert numbers == (list(range(7)) if medium == "disk" else [6])
        ends.add((medium, gone))
    # No room at all, room for the message alone, and enough.
    assert ends == {("memory", 0), ("disk", 0), ("disk", 1)}


_DISK_IS_FULL = """
import resource, sys
from pathlib import Path
from edge_agent.spool import Message, Spool

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
spool = Spool(Path(sys.argv[1]), 1 << 30)
spool.append([Message("event", "boot", b"000000")])
print(spool.medium, len(spool))
"""


@pytest.mark.faults
def test_a_full_disk_at_the_start_is_no_reason_to_lose_a_sound_file(path: Path) -> None:
    _run_until_killed(path, 20)
    log, index = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    assert log.stat().st_size > 0  # what was committed is in the log only
    index.unlink()  # and must be made anew
    files = {file: file.read_bytes() for file in (path, log)}
    with _child(_DISK_IS_FULL, path) as child:
        output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert output == "memory 1\n"
    assert _set_aside(path) == []
    assert {file: file.read_bytes() for file in files} == files
    assert len(_on_disk(path)) > 5
