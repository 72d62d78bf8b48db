"""The status file, the command that reads it, and the metrics: asked of an agent that runs."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.errors import ConfigError
from edge_agent.messages.events import BundleRef
from edge_agent.messages.health import CameraHealth, HealthDocument, StageTimes
from edge_agent.supervision import status_file as module
from edge_agent.supervision.metrics import MetricsServer, render
from edge_agent.supervision.status_file import AgentStatus, ask, here, process_start, write

LIVE = {"kind": "simulated", "width_px": 800, "height_px": 256, "seed": 7, "defects_per_m": 15}


def _status(**changes: Any) -> AgentStatus:
    process_id, process_start = here()
    health = HealthDocument(
        boot_id="b" * 32,
        time="2026-01-01T00:00:00.000000Z",
        uptime_s=12.5,
        frames_captured=10,
        frames_inspected=8,
        frames_suspect=4,
        frames_defective=3,
        frames_in_progress=0,
        lines_captured=2560,
        lines_inspected=2048,
        lines_in_work=0,
        gaps={"overload": 2},
        gap_lines={"overload": 512},
        gaps_of_unknown_length=0,
        camera=CameraHealth(
            state=changes.pop("camera", "streaming"),
            reason="",
            losses=0,
            blocks_taken=10,
            blocks_missing=0,
            blocks_duplicate=0,
            blocks_late=0,
            blocks_rejected={},
            packets_lost=None,
            packets_resent=None,
        ),
        events_spooled=3,
        events_published=1,
        messages_pending=4,
        messages_dropped=0,
        alarms=changes.pop("alarms", ()),
        spool=changes.pop("spool", "disk"),
        latency={"gate": StageTimes(count=8, p50_ms=1.5, p95_ms=2.0, p99_ms=2.5)},
    )
    status = AgentStatus(
        process_id=process_id,
        process_start=process_start,
        agent="cam-1",
        site="site",
        line="line",
        agent_version="0.1.0",
        bundle=BundleRef(name='ti"n\\y', version=3, sha256="a" * 64, gate="g", segmenter="s"),
        written_utc=health.time,
        until_monotonic_s=100.0,
        stages={"camera": 0.1, "inference": 0.2},
        stuck=(),
        publisher_restarts=0,
        broker_connected=True,
        health=health,
    )
    return msgspec.structs.replace(status, **changes)


def _command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", "status", *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "status.json", _status())
    answer = ask(tmp_path / "status.json", 99.0)
    assert (answer.running, answer.well, answer.troubles) == (True, True, ())
    assert answer.status == _status()
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({"until_monotonic_s": 90.0}, "silent: no status for 9 s"),
        ({"stuck": ("inference",), "stages": {"inference": 21.4}}, "inference stands still for 21"),
        ({"broker_connected": False}, "broker: not connected, 4 messages wait"),
        ({"spool": "memory"}, "spool: in memory"),
        ({"camera": "lost"}, "camera: lost"),
        ({"alarms": ("mqtt: another agent",)}, "mqtt: another agent"),
    ],
)
def test_what_needs_a_look_is_said(tmp_path: Path, changes: dict[str, Any], trouble: str) -> None:
    write(tmp_path / "status.json", _status(**changes))
    answer = ask(tmp_path / "status.json", 99.0)
    assert answer.running
    assert not answer.well
    assert len(answer.troubles) == 1
    assert answer.troubles[0].startswith(trouble)


def test_a_process_that_is_gone_does_not_run_whoever_has_its_number_now(tmp_path: Path) -> None:
    _, start = here()
    write(tmp_path / "status.json", _status(process_start=start + 1))
    answer = ask(tmp_path / "status.json", 99.0)
    assert not answer.running
    assert not answer.well
    assert "ended without a word" in answer.troubles[0]
    assert process_start(2**22 + 1) is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    answer = ask(tmp_path / "status.json", 0.0)
    assert not answer.running
    assert answer.troubles[0].startswith("not running: there is no ")


@given(data=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
@settings(max_examples=200, deadline=None)
def test_any_file_is_an_answer(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any-status.json"
    for text in (data, msgspec.json.encode(_status())[: -len(data) or None] + data):
        path.write_bytes(text)
        assert isinstance(ask(path, 0.0).running, bool)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "status.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than" in ask(tmp_path / "status.json", 0.0).troubles[0]


# The command.


@pytest.mark.system
def test_status_of_an_agent_that_runs_is_killed_and_ends(
    mosquitto: Any,
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
    free_port: int,
    tmp_path: Path,
) -> None:
    config = config_file(
        mosquitto.url,
        camera=LIVE,
        health={"interval_s": 0.5, "metrics_port": free_port},
    )
    words = ("--config", str(config))
    assert _command(*words).returncode == 1
    running = agent(config)
    done = eventually(
        lambda: found if (found := _command(*words, "--json")).returncode == 0 else None, "well"
    )
    answer = json.loads(done.stdout)
    assert answer["well"]
    assert answer["status"]["broker_connected"]
    assert set(answer["status"]["stages"]) == {"camera", "inference", "spool", "publisher"}
    assert done.stderr == ""
    # On a busy machine it may be late with its status, which is not well, for a moment.
    in_words = eventually(
        lambda: found if (found := _command(*words)).returncode == 0 else None, "well, in words"
    )
    assert in_words.stdout.startswith("well: agent, process ")

    def scrape() -> dict[str, float]:
        connection = http.client.HTTPConnection("127.0.0.1", free_port, timeout=10)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        families = text_string_to_metric_families(answer.read().decode())
        return {s.name: s.value for f in families for s in f.samples}

    # It is well from its start on, before the first frame.
    eventually(lambda: scrape()["linegate_frames_inspected_total"] >= 1, "a frame")
    assert scrape()["linegate_broker_connected"] == 1

    mosquitto.stop()
    lost = eventually(
        lambda: (
            found
            if (found := _command(*words)).stderr.startswith("edge-agent: broker: not connected")
            else None
        ),
        "not well because of the broker",
    )
    assert lost.returncode == 1
    assert lost.stdout.startswith("not well: ")
    running.kill()
    dead = _command(*words, "--json")
    assert dead.returncode == 1
    assert (json.loads(dead.stdout)["running"], _command(*words).stdout) == (False, "not running\n")

    mosquitto.start()
    again = agent(config)
    eventually(lambda: _command(*words).returncode == 0, "well")
    again.terminate()
    assert again.ended().code == 0
    assert not (tmp_path / "state" / "status.json").exists()


@pytest.mark.system
def test_a_status_file_that_cannot_be_written_does_not_stop_the_line(
    mosquitto: Any, config_file: Callable[..., Path], agent: Callable[..., Any], tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone" / "status.json")
    done = agent(config_file(mosquitto.url, health={"status_file": gone})).ended()
    assert done.code == 0
    assert done.summary["frames_inspected"] == 24
    assert done.stderr.count("health.status_file: ") == 1


def test_status_without_a_configuration_is_refused(tmp_path: Path) -> None:
    done = _command("--config", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


# The metrics.


def test_metrics_are_read_by_prometheus_own_parser() -> None:
    text = render(_status(stuck=("inference",))).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for f in families.values()
        for s in f.samples
    }
    assert samples["linegate_frames_captured_total", ()] == 10
    assert samples["linegate_gaps_total", (("reason", "overload"),)] == 2
    assert samples["linegate_stage_stuck", (("stage", "inference"),)] == 1
    assert samples["linegate_stage_stuck", (("stage", "camera"),)] == 0
    p95 = samples["linegate_latency_seconds", (("quantile", "0.95"), ("stage", "gate"))]
    assert p95 == pytest.approx(0.002)
    (info,) = families["linegate_info"].samples
    assert info.labels["bundle"] == 'ti"n\\y'
    assert families["linegate_frames_captured"].type == "counter"
    assert all(f.documentation for f in families.values())


def test_metrics_and_nothing_else_is_served_and_nobody_can_make_it_wait() -> None:
    server = MetricsServer("127.0.0.1", 0)
    server.show(_status())
    try:
        for method, path, code in (
            ("GET", "/metrics", 200),
            ("GET", "/", 404),
            ("GET", "/../etc/passwd", 404),
            ("POST", "/metrics", 501),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            connection.request(method, path)
            assert connection.getresponse().status == code
        # One who connects and says nothing is cut off, and the next is served.
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("GET", "/metrics")
            assert connection.getresponse().status == 200
            assert silent.recv(1) == b""
        with pytest.raises(ConfigError, match=r"health\.metrics_port: 127\.0\.0\.1:"):
            MetricsServer("127.0.0.1", server.port)
    finally:
        server.close()


def test_the_module_names_a_process_with_an_odd_name(tmp_path: Path) -> None:
    """A program may call itself anything, brackets and blanks included."""
    program = Path(shutil.copy("/bin/sleep", tmp_path / "a) R 1 (b"))
    with subprocess.Popen([str(program), "30"]) as process:
        try:
            time.sleep(0.1)
            start = module.process_start(process.pid)
            own = module.process_start(os.getpid())
            assert start is not None
            assert own is not None
            assert start >= own
        finally:
            process.kill()
