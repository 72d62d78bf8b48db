"""edge-agent spool and tail, beside a spool that a real agent filled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import __main__ as edge_agent_main
from edge_agent.delivery.spool import replay
from edge_agent.delivery.spool.message import ASIDE, SENT, Message, MessageFilter
from edge_agent.delivery.spool.reader import SpoolReader
from edge_agent.delivery.spool.spool import Spool
from tests.support.paths import ROOT

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    """`typed("spool", "status", …)`: exit code, stdout, stderr of edge-agent."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = edge_agent_main.main(list(words))
        except SystemExit as end:  # argparse ends by itself
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return code, out, err

    return run


def lines_of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.system
def test_what_an_agent_left_is_seen_exported_and_sent_again(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    typed: Typed,
) -> None:
    mosquitto.stop()
    config = config_file(mosquitto.url)
    first = agent(config).ended().summary
    count = first["messages_pending"]
    assert count > 5
    which = ("--config", str(config))

    code, out, _ = typed("spool", "status", *which, "--json")
    status = json.loads(out)
    assert (code, status["pending"], status["sent"], status["refused"]) == (0, count, 0, 0)
    assert 0 < status["oldest_pending_ns"] <= status["newest_ns"]
    assert typed("spool", "status", *which)[1].startswith(f"pending  {count} messages")

    exported = tmp_path / "events.jsonl"
    assert typed("spool", "export", *which, "--out", str(exported)) == (0, "", "")
    rows = lines_of(exported.read_text())
    assert [row["message"]["data"]["seq"] for row in rows] == list(range(1, count + 1))
    assert {row["state"] for row in rows} == {"pending"}
    assert lines_of(typed("spool", "export", *which)[1]) == rows
    assert typed("spool", "export", *which, "--until", "1h")[1] == ""

    _, out, _ = typed("tail", *which, "--since", "1h", "--count", "3")
    shown = out.splitlines()
    assert len(shown) == 3
    for line, row in zip(shown, rows, strict=False):
        assert f" agent frame {row['message']['data']['frame_id']}" in line
    _, out, _ = typed("tail", *which, "--json")
    assert lines_of(out) == [row["message"] for row in rows]

    mosquitto.start()
    heard = subscriber(mosquitto.port)
    assert agent(config).ended().code == 0
    heard.wait("event", 2 * count)
    status = json.loads(typed("spool", "status", *which, "--json")[1])
    assert (status["pending"], status["sent"]) == (0, 2 * count), "kept for a while"

    code, out, _ = typed("spool", "replay", *which, "--state", "sent", "--json")
    assert (code, json.loads(out)) == (0, {"messages": 2 * count})
    # Taken up by the agent at its next start, and in the order in which they were spooled.
    assert agent(config, "--frames", "1").ended().code == 0
    heard.wait("event", 4 * count)
    again = [m.json()["data"] for m in heard.of("event")][2 * count : 4 * count]
    assert all(data["replayed"] for data in again)
    assert [data["seq"] for data in again] == 2 * list(range(1, count + 1))
    assert typed("spool", "replay", *which, "--state", "refused")[1].startswith("0 messages")


def test_tail_follows(
    tmp_path: Path, config_file: Callable[..., Path], eventually: Callable[..., Any]
) -> None:
    spool = Spool(tmp_path / "state" / "spool.sqlite3", 1 << 20)
    config = config_file("embedded")
    command = [sys.executable, "-m", "edge_agent", "tail", "--follow", "--json", "--count", "2"]

    def write(text: bytes) -> None:
        spool.write([Message("event", "b", text)], declare=lambda gone, before: gone[0])

    write(b'"one"')
    with subprocess.Popen(
        [*command, "--config", str(config)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline() == '"one"\n'
        write(b'"two"')
        assert tail.communicate(timeout=30)[0] == '"two"\n'
    assert tail.returncode == 0
    spool.close()


def test_a_damaged_message_is_shown_as_such(
    tmp_path: Path, config_file: Callable[..., Path], typed: Typed
) -> None:
    spool = Spool(tmp_path / "state" / "spool.sqlite3", 1 << 20)
    spool.write([Message("event", "b", b"\xff{")], declare=lambda gone, before: gone[0])
    spool.close()
    which = ("--config", str(config_file("embedded")))
    code, out, _ = typed("tail", *which)
    assert (code, out.startswith("message 1 is damaged: ")) == (0, True)
    (row,) = lines_of(typed("spool", "export", *which)[1])
    assert row["message"] is None


def test_refusals(tmp_path: Path, config_file: Callable[..., Path], typed: Typed) -> None:
    which = ("--config", str(config_file("embedded")))
    for words in (("spool", "status"), ("spool", "export"), ("tail",)):
        code, out, err = typed(*words, *which)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "spool.sqlite3: no spool is there" in err
    file = tmp_path / "state" / "spool.sqlite3"
    file.parent.mkdir()
    file.write_bytes(b"no database" * 500)
    code, out, err = typed("spool", "status", *which)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot be read: file is not a database" in err
    for since in ("yesterday", "5x", "-1h", "1601-01-01"):
        code, _, err = typed("tail", *which, f"--since={since}")
        assert (code, "is no time" in err) == (2, True), since


def test_reading_leaves_a_spool_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite3"
    spool = Spool(path, 1 << 20)
    spool.write([Message("event", "b", b"1")], declare=lambda gone, before: gone[0])
    before = path.read_bytes()
    reader = SpoolReader(path)
    assert [one.message.payload for one in reader.messages(MessageFilter())] == [b"1"]
    reader.close()
    assert path.read_bytes() == before
    spool.close()


@pytest.mark.parametrize(
    "wish",
    [
        b"",
        b"{}",
        b"[]",
        b'{"since_ns": -1, "until_ns": 5, "states": [1]}',
        b'{"since_ns": 0, "until_ns": 9223372036854775808, "states": [1]}',
        b'{"since_ns": 0, "until_ns": 5, "states": [1], "more": 1}',
        b" " * 5000,
        b"[" * 4000,
        b"\xff\xfe",
    ],
)
def test_a_wish_that_is_not_understood_is_taken_away(tmp_path: Path, wish: bytes) -> None:
    file = tmp_path / "replay.json"
    file.write_bytes(wish)
    assert replay.take(file) is None
    assert not file.exists()


def test_a_wish_is_taken_once_and_never_touches_what_waits(tmp_path: Path) -> None:
    file = tmp_path / "replay.json"
    replay.leave(file, MessageFilter(since_ns=1, until_ns=2))
    assert replay.take(file) == MessageFilter(since_ns=1, until_ns=2, states=(SENT, ASIDE))
    assert replay.take(file) is None
    assert list(tmp_path.iterdir()) == []
