"""An update of a line that runs: the agent as a process, a broker, real networks, live frames."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.bundle.reader import describe, encode_manifest, parse_manifest
from edge_agent.config import config as configs
from edge_agent.update.bundle_store import BundleStore
from tests.support.paths import ROOT

LINES = 256
# Short, and slow machines pass: what is judged is judged by the tests that say so.
QUICK = {"trial_frames": 8, "prove_frames": 8, "budget_ms": 10_000.0}

pytestmark = pytest.mark.system


def edge_agent(*words: str | Path, code: int = 0) -> Any:
    """A command with --json, its output decoded; or what it says, where it is refused."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", *map(str, words)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if "--json" in words and done.stdout else done.stderr


@pytest.fixture
def live(config_file: Callable[..., Path], mosquitto: Any) -> Callable[..., Path]:
    """`live(**update)`: the config of a line that has no end, with these keys of [update].

    Its camera waits, so every frame must be inspected: what is lost is lost by us.
    """

    def write(**update: Any) -> Path:
        keys = {k: v for k, v in {**QUICK, **update}.items() if v is not None}
        return config_file(mosquitto.url, camera={"loop": True}, update=keys)

    return write


def accounted(summary: dict[str, Any]) -> None:
    assert summary["frames_in_progress"] == 0
    assert summary["frames_captured"] == summary["frames_inspected"] + sum(summary["gaps"].values())


def bundle_by_frame(heard: Any) -> dict[int, int]:
    """The version of the bundle that judged, by frame, of all events heard."""
    return {d["frame_id"]: d["bundle"]["version"] for d in heard.numbered() if "bundle" in d}


def test_a_better_bundle_takes_over_between_two_frames(
    tmp_path: Path,
    live: Callable[..., Path],
    mosquitto: Any,
    subscriber: Callable[..., Any],
    agent: Callable[..., Any],
    write_bundle: Callable[..., Path],
    eventually: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
) -> None:
    config, heard = live(), subscriber(mosquitto.port)
    running = agent(config)
    heard.wait("event", 3)
    newer = write_bundle(tmp_path / "newer", version=2, scale=44.0)
    record = edge_agent("update", "stage", newer, "--config", config, "--wait", "60", "--json")
    assert record["phase"] == "idle"
    assert (record["active"]["version"], record["previous"]["version"]) == (2, 1)
    assert record["last"]["result"] == "committed"
    report = record["last"]["report"]
    assert report["frames"] == 8
    assert (report["errors_running"], report["errors_candidate"]) == (0, 0)
    assert report["defects_running"] > 0
    assert report["slowdown"] > 0
    eventually(lambda: 2 in bundle_by_frame(heard).values(), "an event of the new bundle")
    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr

    # No frame is lost, none is judged twice, and there is one frame from which all is new.
    accounted(done.summary)
    assert done.summary["gaps"] == {}
    assert done.summary["frames_captured"] * LINES == done.summary["lines_inspected"]
    by_frame = bundle_by_frame(heard)
    versions = [by_frame[frame] for frame in sorted(by_frame)]
    assert versions == sorted(versions)
    assert set(versions) == {1, 2}
    assert done.summary["bundle"]["version"] == 2

    # A subscriber saw all of it, but what lasted too short: of `state` only the newest is sent.
    states = [m.json() for m in heard.of("state")]
    for state in states:
        check_schema("state", state)
    online = [s for s in states if s["state"] == "online"]
    phases = [s["update"]["phase"] for s in online if s["update"]]
    seen = list(dict.fromkeys(phases))
    assert seen in (["staged", "trying", "proving", "idle"], ["trying", "proving", "idle"])
    assert online[-1]["bundle"]["version"] == 2
    assert online[-1]["update"]["last"]["result"] == "committed"

    # And the next start goes on with it, whatever the configuration's folder holds: the old one.
    again = agent(config, "--frames", "3").ended()
    assert again.summary["bundle"]["version"] == 2
    assert [p.name for p in sorted((tmp_path / "state" / "update" / "store").iterdir())] == sorted(
        [record["active"]["sha256"], record["previous"]["sha256"]]
    )


@pytest.fixture
def wrong(tmp_path: Path, write_bundle: Callable[..., Path]) -> Path:
    """Whole, and its gate is another than the one that gave the golden outputs."""
    folder = write_bundle(tmp_path / "bundles" / "wrong", version=2)
    other = write_bundle(tmp_path / "other", scale=12.0)
    path = folder / "bundle.json"
    manifest = parse_manifest(path.read_bytes(), path)
    raw = encode_manifest(manifest)
    for artifact in manifest.gate.artifacts:
        name = artifact.file.name
        shutil.copy(other / name, folder / name)
        changed = describe(name, (folder / name).read_bytes())
        raw = raw.replace(artifact.file.sha256.encode(), changed.sha256.encode())
        assert changed.size_bytes == artifact.file.size_bytes
    path.write_bytes(raw)
    return folder


def test_what_does_not_fit_leaves_the_old_bundle_running_and_says_why(
    tmp_path: Path,
    live: Callable[..., Path],
    wrong: Path,
    frames: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    agent: Callable[..., Any],
    write_bundle: Callable[..., Path],
    eventually: Callable[..., Any],
) -> None:
    """One line, and one bad bundle after the other.

    Every fourth frame is white, what the traps wait for: 60 frames that met none would be three
    in a hundred million trials.
    """
    pictures = shutil.copytree(frames, tmp_path / "pictures")
    for path in sorted(pictures.iterdir())[::4]:
        white = np.full_like(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 245)
        assert cv2.imwrite(str(path), white)
    config = live(trial_frames=60, max_turned_share=0.2, budget_ms=None)
    text = config.read_text(encoding="utf-8").replace(str(frames), str(pictures))
    config.write_text(text, encoding="utf-8")
    heard = subscriber(mosquitto.port)
    running = agent(config)
    heard.wait("event", 2)

    said = edge_agent("update", "stage", wrong, "--config", config, code=2)
    assert "differs from the golden outputs" in said
    assert BundleStore(configs.load(config).state_dir).read().candidate is None

    for number, (gate, reason) in enumerate(
        {
            "blind": ({"scale": 1.0}, "of the frames otherwise, update.max_turned_share is 0.2"),
            "slow": ({"burden": 30}, "times as long, 1.5 is the most"),
            "faulty": ({"trap": "raise"}, "frames: "),
            "no number": ({"trap": "nan"}, "ArithmeticError: the gate's score is nan"),
        }.values()
    ):
        worse = write_bundle(tmp_path / f"worse-{number}", version=2 + number, **gate)
        words = ("update", "stage", worse, "--config", config, "--wait", "100")
        assert reason in edge_agent(*words, code=1)
        record = edge_agent("update", "status", "--config", config, "--json")
        assert (record["phase"], record["active"]) == ("idle", None)
        assert record["last"]["result"] == "refused"
        assert record["last"]["bundle"]["version"] == 2 + number
        assert reason in record["last"]["reason"]

        def told(number: int = number) -> bool:
            # The record may be there before the first state that has a last update.
            update = heard.of("state")[-1].json()["update"]
            last = update and update["last"]
            return bool(last) and last["bundle"]["version"] == 2 + number

        eventually(told, "the state says so")
    seen = len(heard.of("event"))
    heard.wait("event", seen + 2)
    running.terminate()
    done = running.ended()
    accounted(done.summary)
    assert done.summary["gaps"] == {}
    assert set(bundle_by_frame(heard).values()) == {1}
    assert not list((tmp_path / "state" / "update" / "store").iterdir())


def test_the_way_back_by_hand(
    tmp_path: Path,
    live: Callable[..., Path],
    mosquitto: Any,
    subscriber: Callable[..., Any],
    agent: Callable[..., Any],
    write_bundle: Callable[..., Path],
    eventually: Callable[..., Any],
) -> None:
    """From the new one in the middle of its proof, and from one that was committed."""
    config, heard = live(prove_frames=1_000_000), subscriber(mosquitto.port)
    running = agent(config)
    newer = write_bundle(tmp_path / "newer", version=2, scale=44.0)
    edge_agent("update", "stage", newer, "--config", config, "--json")
    eventually(lambda: 2 in bundle_by_frame(heard).values(), "an event of the new bundle")
    record = edge_agent("update", "rollback", "--config", config, "--json")
    assert (record["phase"], record["last"]["result"]) == ("idle", "rolled_back")
    last = max(bundle_by_frame(heard))
    eventually(
        lambda: [f for f, v in bundle_by_frame(heard).items() if f > last and v == 1],
        "an event of the old bundle",
    )
    running.terminate()
    first = running.ended()
    accounted(first.summary)
    assert first.summary["gaps"] == {}

    eventually(lambda: heard.of("state")[-1].json()["state"] == "offline", "its last word")
    heard.messages.clear()
    config = live()
    running = agent(config)
    record = edge_agent("update", "stage", newer, "--config", config, "--wait", "60", "--json")
    assert record["last"]["result"] == "committed"
    eventually(lambda: 2 in bundle_by_frame(heard).values(), "an event of the new bundle")
    edge_agent("update", "rollback", "--config", config)
    last = max(bundle_by_frame(heard))
    eventually(
        lambda: [f for f, v in bundle_by_frame(heard).items() if f > last and v == 1],
        "an event of the old bundle",
    )
    eventually(
        lambda: edge_agent("update", "status", "--config", config, "--json")["phase"] == "idle",
        "the old bundle is committed",
    )
    running.terminate()
    second = running.ended()
    accounted(second.summary)
    assert second.summary["gaps"] == {}
    # The older version runs again at the next start: a person said so.
    again = agent(config, "--frames", "3").ended()
    assert again.summary["bundle"]["version"] == 1


def test_a_bundle_under_which_the_agent_is_killed_again_and_again_is_given_up(
    tmp_path: Path,
    live: Callable[..., Path],
    mosquitto: Any,
    subscriber: Callable[..., Any],
    agent: Callable[..., Any],
    write_bundle: Callable[..., Path],
    eventually: Callable[..., Any],
) -> None:
    config = live(prove_frames=1_000_000)
    slots, heard = BundleStore(configs.load(config).state_dir), subscriber(mosquitto.port)
    running = agent(config)
    newer = write_bundle(tmp_path / "newer", version=2, scale=44.0)
    edge_agent("update", "stage", newer, "--config", config, "--json")

    killed: set[str] = set()

    def versions() -> list[int]:
        """Of the bundles behind the events of this boot; a killed one's may still come."""
        mine = [e for e in heard.numbered() if e["boot_id"] not in killed]
        return [e["bundle"]["version"] for e in mine if "bundle" in e]

    for attempt in (1, 2, 3):
        eventually(lambda: 2 in versions(), "an event of the new bundle")
        record = slots.read()
        assert (record.phase, record.attempts) == ("proving", attempt)
        running.kill()
        killed |= {e["boot_id"] for e in heard.numbered()}
        running = agent(config)
    eventually(lambda: len(versions()) > 1, "events of the fourth boot")
    record = slots.read()
    assert record.last is not None
    assert (record.last.result, record.last.reason) == ("rolled_back", "the agent crashed 3 times")
    assert set(versions()) == {1}
    running.terminate()
    done = running.ended()
    accounted(done.summary)
    assert done.summary["gaps"] == {}
    assert done.summary["bundle"]["version"] == 1


def test_a_bundle_staged_by_a_command(
    tmp_path: Path,
    live: Callable[..., Path],
    wrong: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    agent: Callable[..., Any],
    write_bundle: Callable[..., Path],
    eventually: Callable[..., Any],
) -> None:
    """By its name in one folder. One with wrong golden outputs gets no further than its trial."""
    write_bundle(tmp_path / "bundles" / "steel-3", version=3, scale=44.0)
    config = live()
    config.write_text(
        config.read_text(encoding="utf-8")
        + f'[commands]\nallow = ["stage"]\nbundle_folder = "{wrong.parent}"\n',
        encoding="utf-8",
    )
    heard = subscriber(mosquitto.port)
    running = agent(config)
    heard.wait("event", 2)
    asker = mqtt.Client(CallbackAPIVersion.VERSION2)
    asker.connect("127.0.0.1", mosquitto.port)
    asker.loop_start()

    def outcome(bundle: str, version: int) -> dict[str, Any]:
        payload = json.dumps({"id": bundle, "bundle": bundle})
        asker.publish("linegate/site/line/agent/command/stage", payload, 1).wait_for_publish(10)

        def ended() -> Any:
            update = heard.of("state")[-1].json()["update"]
            last = update and update["last"]
            return last if last and last["bundle"]["version"] == version else None

        found: dict[str, Any] = eventually(ended, f"the end of {bundle}")
        return found

    refused = outcome("wrong", 2)
    assert refused["result"] == "refused"
    assert "differs from the golden outputs" in refused["reason"]
    assert outcome("steel-3", 3)["result"] == "committed"
    asker.disconnect()
    asker.loop_stop()
    replies = [m.json() for m in heard.of("reply")]
    assert [(r["id"], r["ok"]) for r in replies] == [("wrong", True), ("steel-3", True)]
    eventually(lambda: 3 in bundle_by_frame(heard).values(), "an event of the new bundle")
    running.terminate()
    done = running.ended()
    accounted(done.summary)
    assert done.summary["gaps"] == {}
    by_frame = bundle_by_frame(heard)
    versions = [by_frame[frame] for frame in sorted(by_frame)]
    assert versions == sorted(versions)
    assert set(versions) == {1, 3}
