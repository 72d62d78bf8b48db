"""GigE Vision end to end: Aravis' simulated camera, the agent as a process, a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import closes
from tests.support.fake_cameras import LONG

pytestmark = [pytest.mark.system, pytest.mark.faults]

_CAMERA: dict[str, Any] = {
    "kind": "genicam",
    "serial": "LINE-A",
    "features.Width": 800,
    "features.Height": 256,
    "features.AcquisitionFrameRate": 15.0,
}


def test_a_camera_that_is_killed_and_comes_back_needs_no_hands(
    aravis: Callable[..., Any],
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
) -> None:
    process = aravis()
    heard = subscriber(mosquitto.port)

    def cameras() -> list[dict[str, Any]]:
        documents = [message.json() for message in heard.of("state")]
        return [one["camera"] for one in documents if one["state"] == "online"]

    def inspected() -> int:
        messages = heard.of("health")
        return int(messages[-1].json()["frames_inspected"]) if messages else 0

    running = agent(config_file(mosquitto.url, camera=_CAMERA, health={"interval_s": 0.5}))
    eventually(lambda: inspected() > 10, "frames are inspected")
    process.kill()
    killed_s = time.monotonic()
    lost = eventually(
        lambda: next((one for one in cameras() if one["state"] == "lost"), None), "lost"
    )
    told_s = time.monotonic() - killed_s
    print(f"killed, and told so by MQTT after {told_s:.2f} s")
    if LONG:
        assert told_s < 2
    assert lost["reason"] == "no_answer"
    assert "serial LINE-A, 127.0.0.1" in lost["detail"]
    process.start()
    eventually(lambda: cameras()[-1]["state"] == "streaming", "the state says it is back")
    before = inspected()
    eventually(lambda: inspected() > before + 10, "frames are inspected again")
    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr
    closes(done.summary)
    # The broker never noticed, and the camera was set up twice.
    assert done.stderr.count("broker: connected") == 1
    assert done.stderr.count("camera: Width = 800") == 2
    assert done.summary["camera"]["losses"] == 1
    assert done.summary["gaps_of_unknown_length"] == 1

    def outages() -> list[dict[str, Any]]:
        gaps = [message.json()["data"] for message in heard.of("gap")]
        return [one for one in gaps if one["line_count"] is None]

    eventually(outages, "the outage is told")
    (outage,) = outages()
    assert outage["reason"] == "camera_loss"
    assert outage["detail"].startswith("no_answer: ")
    for message in heard.messages:
        check_schema(message.kind, message.json())


def test_lost_packets_are_gaps_and_the_sum_closes(
    aravis: Callable[..., Any],
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
) -> None:
    aravis(lost_per_thousand=50)
    heard = subscriber(mosquitto.port)
    camera = {**_CAMERA, "packet_size": 9000}
    running = agent(config_file(mosquitto.url, camera=camera, health={"interval_s": 0.5}))

    def health() -> dict[str, Any]:
        messages = heard.of("health")
        return dict(messages[-1].json()) if messages else {}

    eventually(lambda: health().get("frames_captured", 0) > 40, "frames come")
    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr
    closes(done.summary)
    assert done.summary["gaps"]["incomplete"] > 0
    assert done.summary["camera"]["losses"] == 0
    # The broker has them all; the last ones may still be on their way from it.
    missed = sum(done.summary["gaps"].values())

    def told() -> list[dict[str, Any]]:
        return [message.json()["data"] for message in heard.of("gap")]

    eventually(lambda: sum(one["frame_count"] for one in told()) >= missed, "all gaps are told")
    assert {one["reason"] for one in told()} <= {"incomplete", "camera_loss", "overload"}
    assert sum(one["frame_count"] for one in told()) == missed
