"""The agent as its users run it: a process, a config file, a real broker, real networks."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_agent.image_files import read_image
from edge_agent.inspection import rle
from tests.support.paths import ROOT

LINES, PIXELS = 256, 800  # of the `frames`
# A live camera that leaves the processor time for the rest; about 20 frames a second.
LIVE = {
    "kind": "simulated",
    "width_px": PIXELS,
    "height_px": LINES,
    "seed": 7,
    "defects_per_m": 15,
}

pytestmark = pytest.mark.system


def closes(summary: dict[str, Any]) -> None:
    """Every frame the camera counted was inspected or declared in a gap."""
    gaps = {reason: n for reason, n in summary["gaps"].items() if reason != "spool_overflow"}
    assert summary["frames_in_progress"] == 0
    assert summary["frames_captured"] == summary["frames_inspected"] + sum(gaps.values())


def messages_of(summary: dict[str, Any]) -> int:
    """So many numbers the run gave out: one for each event and each gap."""
    return int(summary["events_spooled"] + sum(summary["gaps"].values()))


def spooled(state_dir: Path) -> list[tuple[str, int]]:
    """(boot_id, seq) of all that is on the disk, seen by another process' eyes."""
    path = state_dir / "spool.sqlite3"
    if not path.exists():
        return []
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = reader.execute("SELECT payload FROM outbox WHERE state = 0 ORDER BY id").fetchall()
    except sqlite3.OperationalError:  # the agent has not made the table yet
        return []
    finally:
        reader.close()
    data = [json.loads(payload)["data"] for (payload,) in rows]
    return [(one["boot_id"], one["seq"]) for one in data]


def in_order(numbered: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Seq of each boot as they came, duplicates dropped as a subscriber drops them.

    Checks what makes that possible: the same number, the same message; and the order. Whether a
    duplicate is marked as replayed says nothing: the broker too may deliver twice.
    """
    seen: dict[tuple[str, str, int], dict[str, Any]] = {}
    boots: dict[str, list[int]] = {}
    for data in numbered:
        key = (data["agent"], data["boot_id"], data["seq"])
        content = {k: v for k, v in data.items() if k != "replayed"}
        if key in seen:
            assert content == seen[key], f"{key} names two messages"
            continue
        seen[key] = content
        boots.setdefault(data["boot_id"], []).append(data["seq"])
    for boot_id, seqs in boots.items():
        assert seqs == sorted(seqs), f"{boot_id}: {seqs}"
    return boots


# From frames to alerts.


def test_a_folder_becomes_alerts(
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
    frames: Path,
    tiny_bundle: Path,
) -> None:
    heard = subscriber(mosquitto.port)
    names = sorted(p.name for p in frames.iterdir())
    config = config_file(mosquitto.url, agent={"name": "cam-1", "coil": "C-7"})
    done = agent(config).ended()
    assert done.code == 0, done.stderr
    summary = done.summary
    heard.wait("state", 2)  # online, and offline, which is the last message

    # Counted the same on both ends.
    closes(summary)
    assert summary["frames_captured"] == len(names) == 24
    assert summary["gaps"] == {}
    assert summary["lines_inspected"] == LINES * len(names)
    events = heard.of("event")
    assert 5 < len(events) < len(names)
    assert len(events) == summary["frames_defective"]
    assert summary["frames_defective"] <= summary["frames_suspect"] < len(names)
    assert summary["events_spooled"] == summary["events_published"] == len(events)
    assert (summary["messages_pending"], summary["messages_dropped"]) == (0, 0)
    assert heard.of("gap") == []
    assert f"{len(names)} of {len(names)} frames inspected" in done.stdout

    # Well formed, and about the strip.
    for message in heard.messages:
        assert message.topic == f"linegate/site/line/cam-1/{message.kind}"
        check_schema(message.kind, message.json())
    assert in_order(heard.numbered()) == {
        summary["boot_id"]: list(range(1, len(events) + 1)),
    }
    for data in heard.numbered():
        assert (data["agent"], data["coil"]) == ("cam-1", "C-7")
        assert data["source"] == names[data["frame_id"]]
        assert data["first_line"] == LINES * data["frame_id"]
        assert data["gate"]["score_logit"] >= data["gate"]["threshold_logit"] == -1.5
        assert data["bundle"]["name"] == "tiny"
        for defect in data["defects"]:
            box, mask = defect["box_px"], defect["mask"]
            decoded = rle.decode(mask["runs"], (mask["lines"], mask["pixels"]))
            assert decoded.shape == (LINES, PIXELS)
            assert decoded.sum() == defect["area_px"]
            y, x = np.nonzero(decoded)
            assert (x.min(), y.min()) == (box["x"], box["y"])
            assert (np.ptp(x) + 1, np.ptp(y) + 1) == (box["width"], box["height"])
            assert defect["across_mm"] == pytest.approx((box["x"] + box["width"] / 2) * 0.25)
            along_m = (data["first_line"] + box["y"]) * 0.25 / 1000
            assert defect["along_m"] == pytest.approx(along_m)
            assert defect["area_mm2"] == pytest.approx(defect["area_px"] / 16)

    # What a subscriber who comes later finds.
    assert [m.json()["state"] for m in heard.of("state")] == ["online", "offline"]
    late = subscriber(mosquitto.port)
    (state,), (health,) = late.wait("state"), late.wait("health")
    assert (state.retain, state.json()["state"]) == (True, "offline")
    assert state.json()["boot_id"] == summary["boot_id"]
    assert health.retain
    check_schema("health", health.json())
    for key in ("boot_id", "frames_captured", "frames_inspected", "frames_defective", "gaps"):
        assert health.json()[key] == summary[key]
    assert late.of("event", "gap") == []


def test_the_smallest_config_of_three_sections(
    tmp_path: Path,
    tiny_bundle: Path,
    free_port: int,
    subscriber: Callable[..., Any],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
) -> None:
    config = tmp_path / "smallest.toml"
    config.write_text(
        f'[agent]\nbundle = "{tiny_bundle}"\nunsigned_bundles = "allow"\n'
        '[camera]\nkind = "simulated"\n'
        '[mqtt]\nbroker = "embedded"\n',
        encoding="utf-8",
    )
    running = agent(config, "--set", f"mqtt.port={free_port}", XDG_STATE_HOME=str(tmp_path / "xdg"))
    heard = subscriber(free_port)
    heard.wait("event", 3)
    heard.wait("health")
    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr
    closes(done.summary)
    assert done.summary["messages_pending"] == 0
    assert done.summary["events_published"] == done.summary["frames_defective"]
    for message in heard.messages:
        check_schema(message.kind, message.json())
    in_order(heard.numbered())
    assert (tmp_path / "xdg" / "linegate" / "agent" / "spool.sqlite3").exists()


def test_the_stand_alone_broker_is_a_broker_like_any_other(
    free_port: int,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
) -> None:
    """It knows 3.1.1 only and never answers to MQTT 5, so the agent has to find that out."""
    program = [sys.executable, "-m", "edge_agent", "broker", "--port", str(free_port)]
    broker = subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with broker:
        assert broker.stderr is not None
        try:
            assert broker.stderr.readline().startswith(f"broker on 127.0.0.1:{free_port}")
            heard = subscriber(free_port)
            done = agent(config_file(f"mqtt://127.0.0.1:{free_port}")).ended()
            assert done.code == 0, done.stderr
            assert done.summary["events_published"] == done.summary["frames_defective"] > 0
            assert len(heard.wait("event", done.summary["events_published"])) == len(
                heard.of("event")
            )
            heard.wait("state", 2)
        finally:
            broker.kill()


def test_frames_ends_the_run_after_so_many(
    mosquitto: Any, config_file: Callable[..., Path], agent: Callable[..., Any]
) -> None:
    done = agent(config_file(mosquitto.url), "--frames", "5", "--json").ended()
    assert done.code == 0, done.stderr
    assert done.summary["frames_captured"] == done.summary["frames_inspected"] == 5
    assert json.loads(done.stdout) == done.summary


def test_sigterm_ends_the_run_in_good_order(
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
) -> None:
    heard = subscriber(mosquitto.port)
    running = agent(config_file(mosquitto.url, camera=LIVE, health={"interval_s": 0.5}))
    heard.wait("event", 3)
    heard.wait("health", 2)
    (state,) = subscriber(mosquitto.port).wait("state")
    assert (state.retain, state.json()["state"]) == (True, "online")
    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr
    closes(done.summary)
    assert [m.json()["state"] for m in heard.wait("state", 2)] == ["online", "offline"]
    assert len(heard.of("event")) == done.summary["events_published"]
    assert done.summary["events_published"] == done.summary["frames_defective"]
    boots = in_order(heard.numbered())
    assert list(boots) == [done.summary["boot_id"]]


# Brokers that are not there.


@pytest.mark.faults
def test_without_a_broker_all_is_inspected_and_kept_for_the_next_run(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
) -> None:
    mosquitto.stop()
    config = config_file(mosquitto.url)
    first = agent(config).ended()
    assert first.code == 0, first.stderr
    closes(first.summary)
    count = first.summary["frames_defective"]
    assert first.summary["frames_inspected"] == 24
    assert count > 5
    assert first.summary["events_published"] == 0
    assert first.summary["messages_pending"] == count
    assert spooled(tmp_path / "state") == [
        (first.summary["boot_id"], seq) for seq in range(1, count + 1)
    ]

    mosquitto.start()
    heard = subscriber(mosquitto.port)
    second = agent(config).ended()
    assert second.code == 0, second.stderr
    heard.wait("event", 2 * count)
    heard.wait("state", 2)
    assert spooled(tmp_path / "state") == []
    numbered = heard.numbered()
    assert in_order(numbered) == {
        first.summary["boot_id"]: list(range(1, count + 1)),
        second.summary["boot_id"]: list(range(1, count + 1)),
    }
    of_first = [data for data in numbered if data["boot_id"] == first.summary["boot_id"]]
    assert numbered[:count] == of_first, "the older ones go first"
    assert all(data["replayed"] for data in of_first)
    for message in heard.of("event"):
        check_schema("event", message.json())


@pytest.mark.faults
def test_a_broker_that_restarts_needs_no_hands(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
) -> None:
    heard = subscriber(mosquitto.port)
    running = agent(config_file(mosquitto.url, camera=LIVE))
    heard.wait("event", 3)
    mosquitto.stop()
    eventually(lambda: len(spooled(tmp_path / "state")) >= 3, "events kept while it is away")
    mosquitto.start()
    heard.wait("event", len(heard.of("event")) + 6)
    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr
    closes(done.summary)
    assert (done.summary["messages_pending"], done.summary["messages_dropped"]) == (0, 0)
    boot, count = done.summary["boot_id"], messages_of(done.summary)
    assert done.summary["events_spooled"] == done.summary["frames_defective"]
    eventually(
        lambda: in_order(heard.numbered()).get(boot) == list(range(1, count + 1)),
        "every event, once, in order",
    )
    assert any(data["replayed"] for data in heard.numbered())


@pytest.mark.faults
def test_a_broker_that_hangs_and_wakes_needs_no_hands(
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
) -> None:
    heard = subscriber(mosquitto.port)
    mosquitto.freeze()  # the kernel still takes connections for it
    running = agent(config_file(mosquitto.url, camera=LIVE))
    eventually(lambda: "no answer to CONNECT" in running.stderr, "word of the hanging broker")
    mosquitto.thaw()
    heard.wait("event", 3)
    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr
    closes(done.summary)
    assert done.summary["events_published"] == done.summary["frames_defective"]
    count = messages_of(done.summary)
    eventually(
        lambda: in_order(heard.numbered()) == {done.summary["boot_id"]: list(range(1, count + 1))},
        "every event, in order",
    )


# The agent itself dies.


@pytest.mark.faults
@pytest.mark.parametrize("broker_is_there", [True, False])
def test_kill_9_loses_nothing_that_was_spooled(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
    broker_is_there: bool,
) -> None:
    heard = subscriber(mosquitto.port)
    config = config_file(mosquitto.url, camera=LIVE)
    running = agent(config)
    heard.wait("event", 3)
    if not broker_is_there:
        mosquitto.stop()
        eventually(lambda: len(spooled(tmp_path / "state")) >= 3, "events in the spool")
    running.kill()
    kept = spooled(tmp_path / "state")
    if broker_is_there:
        # The last will: nobody else could say it.
        eventually(
            lambda: [m.json()["state"] for m in heard.of("state")] == ["online", "offline"],
            "the last will",
        )
        (late,) = subscriber(mosquitto.port).wait("state")
        assert (late.retain, late.json()["state"]) == (True, "offline")
    else:
        assert len(kept) >= 3
        mosquitto.start()

    done = agent(config, "--frames", "30").ended()
    assert done.code == 0, done.stderr
    assert done.summary["messages_pending"] == 0
    second = done.summary["boot_id"]
    eventually(
        lambda: len(in_order(heard.numbered()).get(second, ())) == messages_of(done.summary),
        "all messages of the second run",
    )
    boots = in_order(heard.numbered())
    assert list(boots)[1:] == [second]
    (first,) = set(boots) - {second}
    # None is missing: neither between the two nor of those on the disk.
    assert boots[first] == list(range(1, max(boots[first]) + 1))
    assert {seq for boot, seq in kept if boot == first} <= set(boots[first])
    assert boots[second] == list(range(1, len(boots[second]) + 1))
    assert spooled(tmp_path / "state") == []


def test_two_agents_do_not_share_a_state_dir(
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
) -> None:
    heard = subscriber(mosquitto.port)
    config = config_file(mosquitto.url, camera=LIVE)
    running = agent(config)
    heard.wait("event")
    second = agent(config).ended()
    assert second.code == 2
    assert "agent.state_dir" in second.stderr
    assert "another agent is using it" in second.stderr
    assert running.running
    heard.wait("event", len(heard.of("event")) + 2)
    running.kill()
    # The lock dies with its owner.
    third = agent(config, "--frames", "1").ended()
    assert third.code == 0, third.stderr


# What is not inspected is declared.


@pytest.mark.faults
def test_overload_is_declared_frame_by_frame(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
    write_bundle: Callable[..., Path],
) -> None:
    heard = subscriber(mosquitto.port)
    slow = write_bundle(tmp_path / "slow", burden=40)
    config = config_file(
        mosquitto.url,
        agent={"bundle": str(slow), "precision": "float32"},
        camera={**LIVE, "speed": 1000.0},
        queues={"frames": 1},
    )
    done = agent(config, "--frames", "40").ended()
    assert done.code == 0, done.stderr
    summary = done.summary
    closes(summary)
    assert summary["frames_captured"] == 40
    assert set(summary["gaps"]) == {"overload"}
    heard.wait("state", 2)
    gaps = [m.json()["data"] for m in heard.of("gap")]
    assert len(gaps) == summary["gaps"]["overload"] > 0
    for message in heard.of("event", "gap"):
        check_schema(message.kind, message.json())
    assert len({gap["frame_id"] for gap in gaps}) == len(gaps)
    assert all(gap["first_line"] == LINES * gap["frame_id"] for gap in gaps)
    # Every line: inspected, or in a gap.
    missed = sum(gap["line_count"] for gap in gaps)
    assert summary["lines_inspected"] + missed == LINES * 40
    alerted = {m.json()["data"]["frame_id"] for m in heard.of("event")}
    assert not alerted & {gap["frame_id"] for gap in gaps}
    in_order(heard.numbered())


@pytest.fixture
def frames_with_bad_ones(tmp_path: Path, frames: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Good frames with others between them, and what is to be said of those."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = sorted(frames.iterdir())[:8]
    for number, path in enumerate(good):
        shutil.copy(path, folder / f"{10 * number + 5:03}.png")
    whole = good[2].read_bytes()
    image = read_image(good[0])
    (folder / "000.png").write_bytes(b"")
    (folder / "011.png").write_bytes(whole[: len(whole) // 2])
    (folder / "012.jpg").write_text("no picture", encoding="utf-8")
    cv2.imwrite(str(folder / "021.png"), image[:, :700])
    cv2.imwrite(str(folder / "022.png"), image.astype(np.uint16) * 256)
    (folder / "031.png").mkdir()
    (folder / "032.tiff").symlink_to(folder / "gone")
    (folder / "readme.txt").write_text("is no frame at all", encoding="utf-8")
    return (
        folder,
        {
            "000.png": "empty",
            "011.png": "truncated",
            "012.jpg": "not a picture",
            "021.png": "700x256 px",
            "022.png": "uint16 pixels",
            "031.png": "cannot be read",
            "032.tiff": "cannot be read",
        },
    )


@pytest.mark.faults
def test_bad_files_become_gaps_and_the_line_goes_on(
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
    frames_with_bad_ones: tuple[Path, dict[str, str]],
) -> None:
    folder, bad = frames_with_bad_ones
    heard = subscriber(mosquitto.port)
    done = agent(config_file(mosquitto.url, camera={"path": str(folder)})).ended()
    assert done.code == 0, done.stderr
    closes(done.summary)
    assert done.summary["frames_inspected"] == 8
    assert done.summary["gaps"] == {"bad_frame": len(bad)}
    heard.wait("state", 2)
    gaps = heard.of("gap")
    assert len(gaps) == len(bad)
    for message, (name, why) in zip(gaps, bad.items(), strict=True):
        check_schema("gap", message.json())
        gap = message.json()["data"]
        assert gap["reason"] == "bad_frame"
        assert gap["detail"].startswith(f"{name}: ")
        assert why in gap["detail"]
        # Of a frame before the first good one nobody knows how many lines it had.
        assert gap["line_count"] == (None if name == "000.png" else LINES)
    assert len(heard.of("event")) == done.summary["frames_defective"] > 0


def bright_frames(folder: Path, good: list[Path]) -> list[str]:
    """The good ones with a frame in between that sets off the gate's trap."""
    folder.mkdir()
    bright = np.full((LINES, PIXELS), 250, np.uint8)
    bright[100:130, 300:390] = 90  # a dark spot that the segmenter sees
    names = []
    for number, path in enumerate(good):
        shutil.copy(path, folder / f"{number:02}a.png")
        names.append(f"{number:02}b.png")
        cv2.imwrite(str(folder / names[-1]), bright)
    return names


@pytest.mark.faults
@pytest.mark.parametrize("trap", ["raise", "nan"])
def test_a_network_that_fails_on_a_frame_becomes_a_gap(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
    write_bundle: Callable[..., Path],
    frames: Path,
    trap: str,
) -> None:
    """It fails in the native library, or it gives a number that is none."""
    bad = bright_frames(tmp_path / "mixed", sorted(frames.iterdir())[2:6])
    heard = subscriber(mosquitto.port)
    config = config_file(
        mosquitto.url,
        agent={"bundle": str(write_bundle(tmp_path / "trapped", trap=trap))},
        camera={"path": str(tmp_path / "mixed")},
    )
    done = agent(config).ended()
    assert done.code == 0, done.stderr
    heard.wait("state", 2)
    for message in heard.messages:
        check_schema(message.kind, message.json())
    closes(done.summary)
    assert done.summary["frames_captured"] == 8
    assert done.summary["gaps"] == {"inference_error": len(bad)}
    gaps = [m.json()["data"] for m in heard.of("gap")]
    assert [gap["frame_id"] for gap in gaps] == [1, 3, 5, 7]
    assert all(gap["detail"] and gap["line_count"] == LINES for gap in gaps)
    assert len(heard.of("event")) == done.summary["frames_defective"] == 4


# Refused at the start: one line, exit code 2.


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.fixture
def refused(
    tmp_path: Path, config_file: Callable[..., Path], agent: Callable[..., Any]
) -> Callable[..., str]:
    """`refused(config)`: what the agent says; it has to be one line, and exit code 2."""

    def run(config: Path) -> str:
        done = agent(config).ended()
        assert done.code == 2, done.stderr
        assert done.summary is None
        assert done.stdout == ""
        *before, last = done.stderr.splitlines()
        assert last.startswith("edge-agent: ")
        assert all(line.startswith("INFO ") for line in before), done.stderr
        return last

    return run


NOWHERE = "mqtt://127.0.0.1:1"


def test_refused_without_its_config(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused(tmp_path / "nonesuch.toml")
    assert "--config" in said
    assert "nonesuch.toml: No such file" in said


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"agent": {"nmae": "x"}}, "agent.nmae: unknown key; did you mean 'name'?"),
        ({"queues": {"frames": 0}}, "queues.frames: 0 does not fit"),
        ({"agent": {"bundle": "no/such/bundle"}}, "no/such/bundle/bundle.json: No such file"),
        ({"agent": {"precision": "int4"}}, "no artifact can be used here (onnx-float32: "),
        ({"camera": {"path": "no/such/frames"}}, "camera.path: no/such/frames: No such file"),
        ({"camera": {"path": "edge_agent"}}, "camera.path: edge_agent: no image files"),
        ({"mqtt": {"password_file": "no/such/file"}}, "mqtt.password_file: no/such/file: No such"),
    ],
)
def test_refused_for_its_config(
    config_file: Callable[..., Path],
    refused: Callable[..., str],
    sections: dict[str, dict[str, Any]],
    expected: str,
) -> None:
    assert expected in refused(config_file(NOWHERE, **sections))


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (
            "gate-float32.onnx",
            lambda data: data[:-1] + bytes([data[-1] ^ 1]),
            "gate-float32.onnx: sha256 is not the one in bundle.json",
        ),
        (
            "golden.npz",
            lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
            "golden.npz: sha256 is not the one in bundle.json",
        ),
        ("bundle.json", lambda data: data[:-20], "bundle.json: "),
        (
            "bundle.json",
            lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 9'),
            "bundle.json: ",
        ),
    ],
)
@pytest.mark.faults
def test_refused_for_its_bundle(
    tmp_path: Path,
    tiny_bundle: Path,
    config_file: Callable[..., Path],
    refused: Callable[..., str],
    name: str,
    change: Callable[[bytes], bytes],
    expected: str,
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    edit(bundle / name, change)
    assert expected in refused(config_file(NOWHERE, agent={"bundle": str(bundle)}))


def test_refused_when_the_embedded_brokers_port_is_taken(
    config_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(config_file("embedded", mqtt={"broker": "embedded", "port": port}))
    assert f"mqtt.port: {port}: " in said
    assert "in use" in said


def test_refused_when_the_state_dir_cannot_be_made(
    tmp_path: Path, config_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    said = refused(config_file(NOWHERE, agent={"state_dir": str(tmp_path / "file" / "state")}))
    assert "agent.state_dir: " in said
    assert "Not a directory" in said
