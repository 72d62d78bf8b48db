"""The spool: what was handed over is there afterwards, whatever happens to process and disk."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_agent.clock import Clock
from edge_agent.delivery.spool.message import ASIDE, Message, MessageFilter, StoredMessage
from edge_agent.delivery.spool.spool import Spool, WriteResult
from tests.support.paths import ROOT

PLENTY = 1 << 30
ALL = 1 << 20


def _message(number: int, size: int = 6, kind: str = "event") -> Message:
    return Message(kind, "boot", b"%06d" % number + b"x" * (size - 6), number)


DROPPED = b"dropped:"
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a sync costs nothing: what a process does, not what a disk does, is looked at there."""


def _declare(gone: Sequence[Message], before: int) -> Message:
    """A gap that names what went; what an earlier such gap named goes with it."""
    numbers = b",".join(m.payload.removeprefix(DROPPED) for m in gone if m.kind == "gap")
    named = b",".join(b"%d" % m.seq for m in gone if m.kind == "event")
    return Message("gap", "boot", DROPPED + b",".join(n for n in (numbers, named) if n))


def _append(spool: Spool, messages: Sequence[Message]) -> WriteResult:
    return spool.write(messages, declare=_declare)


def _delete(spool: Spool, ids: Sequence[int]) -> None:
    spool.write(sent=ids, declare=_declare)


def _number(message: Message) -> int:
    return int(message.payload[:6])


def _numbers(stored: Sequence[StoredMessage]) -> list[int]:
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
    assert _append(spool, [_message(1), _message(2, kind="gap")]) == WriteResult()
    assert _append(spool, [_message(3)]) == WriteResult()
    found = spool.after(0, ALL)
    assert [one.message for one in found] == [_message(1), _message(2, kind="gap"), _message(3)]
    assert [one.id for one in found] == sorted(one.id for one in found)
    assert len(spool) == 3
    assert spool.last_id == found[-1].id
    spool.close()


def test_after_reads_on_from_an_id(path: Path) -> None:
    spool = Spool(path, PLENTY)
    _append(spool, [_message(n) for n in range(10)])
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
    _append(spool, [_message(n) for n in range(6)])
    ids = [one.id for one in spool.after(0, ALL)]
    _delete(spool, [ids[1], ids[4]])
    _delete(spool, [ids[1], 10**9])  # gone already, never there
    _delete(spool, [])
    assert _numbers(spool.after(0, ALL)) == [0, 2, 3, 5]
    assert len(spool) == 4
    spool.close()


def test_an_empty_spool(path: Path) -> None:
    spool = Spool(path, PLENTY)
    assert (len(spool), spool.last_id, spool.medium) == (0, 0, "disk")
    assert spool.after(0, ALL) == ()
    assert _append(spool, []) == WriteResult()
    assert path.is_file()
    spool.close()


def test_any_payload_comes_back_as_it_was(path: Path) -> None:
    payloads = [b"", b"\0", bytes(range(256)), "größer".encode(), b"x" * 300_000]
    spool = Spool(path, PLENTY)
    _append(spool, [Message("event", "böot", payload) for payload in payloads])
    spool.close()
    spool = Spool(path, PLENTY)
    assert [one.message.payload for one in spool.after(0, ALL)] == payloads
    assert {one.message.boot_id for one in spool.after(0, ALL)} == {"böot"}
    spool.close()


def test_it_survives_a_restart_and_never_uses_an_id_twice(path: Path) -> None:
    spool = Spool(path, PLENTY)
    _append(spool, [_message(n) for n in range(4)])
    last = spool.last_id
    _delete(spool, [last])
    spool.close()
    spool = Spool(path, PLENTY)
    assert len(spool) == 3
    _append(spool, [_message(9)])
    assert spool.last_id > last
    assert _numbers(spool.after(0, ALL)) == [0, 1, 2, 9]
    spool.close()


# Bounds.

SMALL = 200_000  # bytes of file, 48 pages


def _held(spool: Spool) -> tuple[list[int], list[int]]:
    """Numbers that are there, and numbers that a gap there declares as dropped."""
    there, dropped = [], []
    for one in spool.after(0, ALL):
        payload = one.message.payload
        if payload.startswith(DROPPED):
            dropped += [int(n) for n in payload.removeprefix(DROPPED).split(b",") if n]
        elif not one.message.kind.startswith("evidence/"):
            there.append(one.message.seq)
    return there, dropped


def _size(path: Path) -> int:
    """Of the database, when its log has been written back."""
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(reader.execute("PRAGMA page_count").fetchone()[0]) * 4096
    finally:
        reader.close()


@pytest.mark.parametrize("size", [100, 900, 5_000, 20_000])
def test_the_file_stays_within_its_bound_and_the_oldest_give_way_declared(
    path: Path, size: int
) -> None:
    spool = Spool(path, SMALL)
    dropped = 0
    count = 4 * SMALL // size
    step = 5 if size < 1_000 else 1
    for number in range(1, count + 1, step):
        batch = [_message(n, size) for n in range(number, number + step)]
        dropped += _append(spool, batch).dropped
        assert spool.medium == "disk"
    count = number + step - 1
    there, declared = _held(spool)
    assert dropped > count // 4
    assert there == list(range(there[0], count + 1)), "the newest, without a hole"
    assert sorted(declared) == list(range(1, there[0])), "and all that is not there is declared"
    # The bound is made use of, too.
    assert len(there) * size > SMALL // 20
    assert _size(path) <= SMALL
    spool.close()
    assert path.stat().st_size <= SMALL


def test_a_large_batch_that_finds_room_pushes_nothing_out(path: Path) -> None:
    spool = Spool(path, 1 << 20)
    assert _append(spool, [_message(n, 700) for n in range(1000)]) == WriteResult()
    assert len(spool) == 1000
    spool.close()


def test_pictures_give_way_before_older_events(path: Path) -> None:
    spool = Spool(path, SMALL)
    for number in range(1, 9):
        picture = Message(f"evidence/{number}", "boot", bytes(15_000))
        _append(spool, [_message(number, 1_000), picture])
    for number in range(9, 60):
        _append(spool, [_message(number, 1_000)])
    there, _ = _held(spool)
    assert there == list(range(1, 60)), "no event went"
    kinds = [one.message.kind for one in spool.after(0, ALL)]
    assert sum(kind.startswith("evidence/") for kind in kinds) < 8
    spool.close()


def test_history_gives_way_first_and_without_a_word(path: Path) -> None:
    spool = Spool(path, SMALL, history=1000)
    for number in range(1, 100):
        written = _append(spool, [_message(number, 5_000)])
        assert written == WriteResult()
        _delete(spool, [spool.last_id])
    assert len(spool) == 0
    spool.close()


def test_after_a_restart_the_bound_counts_what_was_there(path: Path) -> None:
    spool = Spool(path, 2 * SMALL)
    for number in range(1, 60):
        _append(spool, [_message(number, 5_000)])
    spool.close()
    spool = Spool(path, SMALL)  # and the config now allows less
    assert _append(spool, [_message(60, 20)]).dropped > 20
    there, declared = _held(spool)
    assert sorted(there + declared) == list(range(1, 61))
    spool.close()


# What was sent.


def test_what_was_sent_stays_for_a_while_and_can_be_sent_again(path: Path) -> None:
    spool = Spool(path, PLENTY, history=10, clock=Clock(utc_ns=iter(range(1, 1000)).__next__))
    _append(spool, [_message(n) for n in range(1, 31)])
    _delete(spool, range(1, 26))
    assert len(spool) == 5
    assert _numbers(spool.after(0, ALL)) == [26, 27, 28, 29, 30]
    assert spool.send_again(MessageFilter(since_ns=18, until_ns=20)) == 3
    found = spool.after(0, ALL)
    assert _numbers(found) == [18, 19, 20, 26, 27, 28, 29, 30]
    assert [one.again for one in found] == [True] * 3 + [False] * 5
    _delete(spool, [one.id for one in found])
    assert len(spool) == 0
    spool.close()


def test_what_was_set_aside_is_kept_with_its_reason(path: Path) -> None:
    spool = Spool(path, PLENTY)
    _append(spool, [_message(n) for n in range(1, 4)])
    spool.write(aside=[(2, "too large")], declare=_declare)
    assert (len(spool), spool.aside) == (2, 1)
    assert _numbers(spool.after(0, ALL)) == [1, 3]
    assert any("1 messages set aside" in alarm for alarm in spool.alarms)
    spool.close()
    spool = Spool(path, PLENTY)
    assert spool.aside == 1
    assert spool.send_again(MessageFilter(states=(ASIDE,))) == 1
    assert _numbers(spool.after(0, ALL)) == [1, 2, 3]
    assert spool.alarms == ()
    spool.close()


def test_what_version_0_1_0_left_is_sent(path: Path) -> None:
    path.parent.mkdir()
    old = sqlite3.connect(path)
    old.execute("PRAGMA journal_mode = WAL")
    old.execute(
        "CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, "
        "boot_id TEXT NOT NULL, payload BLOB NOT NULL)"
    )
    for number in range(5):
        old.execute(
            "INSERT INTO message (kind, boot_id, payload) VALUES ('event', 'a', ?)",
            (b"%06d" % number,),
        )
    old.commit()
    old.close()
    for _ in range(2):
        spool = Spool(path, PLENTY)
        assert _numbers(spool.after(0, ALL)) == [0, 1, 2, 3, 4]
        spool.close()


class SpoolMachine(RuleBasedStateMachine):
    """Two lists are what the spool promises to be: what is unsent, and what is gone, declared.

    A disk that fails and comes back is one of the things that happen to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=FAST)
        self.path = Path(self.folder.name) / "spool.sqlite3"
        self.now_s = 0.0
        self.given = 0
        self.arrived: set[int] = set()
        self.declared_and_sent: set[int] = set()
        self.highest = 0
        self.spool = self.open()

    def open(self) -> Spool:
        return Spool(
            self.path, 131_072, history=5, clock=Clock(monotonic_ns=lambda: round(self.now_s * 1e9))
        )

    def fail(self, at_pages: int) -> None:
        """SQLite's own full disk: its limit is set where it is now."""
        disk = self.spool._disk
        if disk is not None and self.spool.medium == "disk":
            db = disk._db
            used = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {used + at_pages}")

    @rule(sizes=st.lists(st.integers(6, 9_000), max_size=6), pictures=st.booleans())
    def append(self, sizes: list[int], pictures: bool) -> None:
        messages = []
        for size in sizes:
            self.given += 1
            messages.append(_message(self.given, size))
            if pictures:
                messages.append(Message(f"evidence/{self.given}", "boot", bytes(3_000)))
        before = {one.id for one in self.spool.after(0, ALL)}
        _append(self.spool, messages)
        new = [one.id for one in self.spool.after(0, ALL) if one.id not in before]
        assert all(i > self.highest for i in new)
        self.highest = max([self.highest, *new])

    @rule(picks=st.sets(st.integers(0, 12)), unknown=st.lists(st.integers(10**6, 10**7)))
    def send(self, picks: set[int], unknown: list[int]) -> None:
        found = self.spool.after(0, ALL)
        chosen = [one for at, one in enumerate(found) if at in picks]
        _delete(self.spool, [*(one.id for one in chosen), *unknown])
        for one in chosen:
            if one.message.payload.startswith(DROPPED):
                _, numbers = one.message.payload.split(b":")
                self.declared_and_sent |= {int(n) for n in numbers.split(b",") if n}
            elif one.message.seq:
                self.arrived.add(one.message.seq)

    @rule(at_pages=st.integers(0, 3))
    def the_disk_fails(self, at_pages: int) -> None:
        self.fail(at_pages)

    @rule()
    def time_passes(self) -> None:
        self.now_s += 60.0
        self.spool.tend(_declare)
        assert self.spool.medium == "disk"

    @rule()
    def restart(self) -> None:
        self.spool.hurry()
        self.spool.tend(_declare)
        self.spool.close()
        self.spool = self.open()
        # Ids rise within a process. What was sent from memory left none on the disk to rise above.
        self.highest = max((one.id for one in self.spool.after(0, ALL)), default=0)

    @invariant()
    def nothing_is_lost_unsaid(self) -> None:
        there, dropped = _held(self.spool)
        assert there == sorted(there), "in order"
        known = set(there) | set(dropped) | self.arrived | self.declared_and_sent
        assert known == set(range(1, self.given + 1))
        assert not set(there) & self.arrived, "what was sent does not come back"
        ids = [one.id for one in self.spool.after(0, ALL)]
        assert ids == sorted(set(ids))
        assert len(self.spool) == len(ids)

    def teardown(self) -> None:
        self.spool.close()
        self.folder.cleanup()


TestAgainstTwoLists = SpoolMachine.TestCase
TestAgainstTwoLists.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# A process that is killed.

_APPENDS_UNTIL_KILLED = """
import sys
from pathlib import Path
from edge_agent.delivery.spool.spool import Spool
from edge_agent.delivery.spool.message import Message

spool = Spool(Path(sys.argv[1]), 1 << 30)
print("open", flush=True)
number = 0
while True:
    number += 1
    payload = b"%06d" % number + bytes(number * 37 % 5000)
    spool.write([Message("event", "boot", payload)], declare=None)
    print("+", number, flush=True)
    if number % 3 == 0:
        spool.write(sent=[spool.last_id], declare=None)
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
        _append(spool, [_message(number, sizes.randrange(6, 9000))])
        ends.append(log.stat().st_size)
    found = _Written(path.read_bytes(), log.read_bytes(), tuple(ends))
    spool.close()
    assert len(found.log) == ends[-1]
    return found


@pytest.mark.faults
def test_torn_logs_lose_nothing_that_lies_before_the_tear(written: _Written) -> None:
    """2,000 tails cut, zeroed, garbled or with a bit flipped, seeds 0 to 1999."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        for seed in range(2_000):
            draw = random.Random(seed)
            at = draw.randrange(len(written.log) + 1)
            how = ("cut", "zero", "garble", "flip")[seed % 4]
            lost = _tear_and_open(written, Path(folder) / str(seed), at, how, draw)
            outcomes[how] += lost > 0
    # A tear at the end of the log may hit nothing; most hit something.
    assert all(outcomes[how] > 300 for how in ("cut", "zero", "garble", "flip")), outcomes


def _tear_and_open(written: _Written, folder: Path, at: int, how: str, draw: random.Random) -> int:
    """How many appends are gone, none of which was written before the tear."""
    log = bytearray(written.log)
    if how == "cut":
        del log[at:]
    else:
        part = slice(at, min(at + draw.randrange(1, 20_000), len(log)))
        size = len(log[part])
        if how == "zero":
            log[part] = bytes(size)
        elif how == "garble":
            log[part] = draw.randbytes(size)
        elif size:
            log[at] ^= 1 << draw.randrange(8)
    folder.mkdir()
    path = folder / "spool.sqlite3"
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
    _append(spool, [_message(99)])
    assert _numbers(spool.after(0, ALL)) == [*range(len(found)), 99]
    spool.close()
    shutil.rmtree(folder)
    return len(written.ends) - len(found)


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
    _append(spool, [_message(n, 9000) for n in range(20)])
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
    _append(spool, [_message(7)])
    spool.close()
    assert _on_disk(path) == [7]


def test_an_empty_file_is_a_new_spool(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    spool = Spool(path, PLENTY)
    _append(spool, [_message(1)])
    spool.close()
    assert _on_disk(path) == [1]
    assert _set_aside(path) == []


@pytest.fixture
def failing(path: Path) -> Spool:
    """An open spool whose file has become unreadable since."""
    spool = Spool(path, PLENTY)
    _append(spool, [_message(n, 50_000) for n in range(100)])  # more than SQLite's cache
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
        lambda spool: _delete(spool, [50]),
        lambda spool: _delete(spool, range(1, 101)),
        lambda spool: _append(spool, [_message(1, 500_000)]),
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
    _append(failing, [_message(7)])
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
    # The same spool otherwise.
    assert _append(spool, [_message(n, 20) for n in range(6)]) == WriteResult()
    found = spool.after(0, ALL)
    assert _numbers(found) == [0, 1, 2, 3, 4, 5]
    _delete(spool, [found[0].id])
    assert len(spool) == 5
    spool.close()
    folder.chmod(0o700)
    assert not list(tmp_path.rglob("*corrupt*"))


# RLIMIT_FSIZE is a disk that is full, for one process alone.
_DISK_FILLS_UP = """
import json, resource, sys
from pathlib import Path
from edge_agent.clock import Clock
from edge_agent.delivery.spool.spool import Spool
from edge_agent.delivery.spool.message import Message

now = 0.0
spool = Spool(Path(sys.argv[1]), 1 << 30, clock=Clock(monotonic_ns=lambda: round(now * 1e9)))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
cursor, seen, media = 0, [], []
for number in range(120):
    spool.write([Message("event", "boot", b"%06d" % number + bytes(5000))], declare=None)
    for stored in spool.after(cursor, 10):
        cursor = stored.id
        seen.append(int(stored.message.payload[:6]))
    media.append(spool.medium)
# Acknowledged: one from the disk, one from memory. The disk cannot note the first yet.
spool.write(sent=[1, 120], declare=None)
left = [[int(s.message.payload[:6]) for s in spool.after(0, 1000)]]
now = 1000.0
spool.tend(None)
media.append(spool.medium)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
now = 2000.0
spool.tend(None)
media.append(spool.medium)
left.append([int(s.message.payload[:6]) for s in spool.after(0, 1000)])
print(json.dumps([media, seen, left, len(spool)]), flush=True)
import os
os.kill(os.getpid(), 9)
"""


@pytest.mark.faults
def test_a_disk_that_fills_up_loses_nothing_and_is_used_again_when_it_has_room(path: Path) -> None:
    with _child(_DISK_FILLS_UP, path) as child:
        output, _ = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    media, seen, left, pending = json.loads(output)
    assert media[0] == "disk"
    assert media[119:] == ["memory", "memory", "disk"]
    # Who reads on from the last id misses none where the medium changes, nor is the order lost.
    assert seen == list(range(120))
    assert left == [list(range(1, 119))] * 2
    assert pending == 118
    # And all of it is on the disk again, whatever happens to the process then.
    assert _on_disk(path) == list(range(1, 119))


_DISK_IS_FULL = """
import resource, sys
from pathlib import Path
from edge_agent.delivery.spool.spool import Spool
from edge_agent.delivery.spool.message import Message

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
spool = Spool(Path(sys.argv[1]), 1 << 30)
spool.write([Message("event", "boot", b"000000")], declare=None)
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
