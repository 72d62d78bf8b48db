"""Cameras end to end: the agent as a process, a real broker, what subscribers then know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_agent.image_files import read_image
from tests.support.accounts import closes
from tests.support.rtsp import rtsp_servers

LINES, PIXELS = 256, 800  # of the `frames`

pytestmark = pytest.mark.system


def write_steel(path: Path, frames: Path, fps: float) -> None:
    """The frames as a video of JPEG images of the best quality."""
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, (PIXELS, LINES))
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 100)
    for one in sorted(frames.iterdir()):
        writer.write(cv2.cvtColor(read_image(one), cv2.COLOR_GRAY2BGR))
    writer.release()


# Where the camera cuts makes no difference.


@pytest.mark.parametrize("data", ["simulated", "aitex"])
def test_blocks_of_37_lines_give_what_whole_frames_give(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
    frames: Path,
    data: str,
) -> None:
    """Byte for byte: the same scores, and the same defects in the same places."""
    whole = frames
    if data == "aitex":
        # Real images of a line camera, 4096x256; the defective ones first.
        source, whole = request.getfixturevalue("shared_data") / data, tmp_path / "whole"
        if not source.is_dir():
            pytest.skip("the data set aitex is not beside this repository")
        whole.mkdir()
        for path in sorted(source.glob("*/*.png")):
            shutil.copy(path, whole / f"{path.parent.name}-{path.name}")
    images = [read_image(path) for path in sorted(whole.iterdir())]
    assert {image.shape[0] for image in images} == {LINES}
    strip = np.concatenate(images)
    blocks = tmp_path / "blocks"
    blocks.mkdir()
    for first in range(0, len(strip), 37):
        assert cv2.imwrite(str(blocks / f"{first:06}.png"), strip[first : first + 37])

    def run(camera: dict[str, Any], name: str) -> tuple[dict[str, Any], list[bytes]]:
        heard = subscriber(mosquitto.port, f"linegate/+/+/{name}/#")
        done = agent(config_file(mosquitto.url, agent={"name": name}, camera=camera)).ended()
        assert done.code == 0, done.stderr
        heard.wait("state", 2)
        closes(done.summary)
        told = []
        for message in heard.of("event"):
            check_schema("event", message.json())
            event = message.json()["data"]
            found = [{**d, "id": d["id"].partition("-")[2]} for d in event["defects"]]
            where = [event[key] for key in ("frame_id", "first_line", "line_count", "gate")]
            told.append(json.dumps([*where, found]).encode())
        return done.summary, told

    frame_by_frame = {"path": str(whole)}
    cut = {"path": str(blocks), "mixed_sizes": True, "frame_lines": "bundle"}
    summary, told = run(frame_by_frame, "whole")
    recut_summary, recut_told = run(cut, "recut")
    assert recut_summary["frames_inspected"] == summary["frames_inspected"] == len(images)
    assert recut_summary["lines_inspected"] == summary["lines_inspected"] == len(strip)
    assert recut_summary["gaps"] == {}
    assert recut_summary["camera"]["blocks_taken"] == -(-len(strip) // 37)
    assert len(told) > 0
    assert recut_told == told


def test_a_defect_in_the_overlap_is_told_once(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    frames: Path,
) -> None:
    heard = subscriber(mosquitto.port)
    camera = {"path": str(frames), "frame_lines": LINES, "overlap_lines": 64}
    done = agent(config_file(mosquitto.url, camera=camera)).ended()
    assert done.code == 0, done.stderr
    heard.wait("state", 2)
    closes(done.summary)
    total = 24 * LINES
    assert done.summary["lines_inspected"] == total
    assert done.summary["frames_inspected"] == -(-(total - 64) // (LINES - 64))
    seen: dict[str, int] = {}
    for message in heard.of("event"):
        event = message.json()["data"]
        assert event["overlap_lines"] == (64 if event["frame_id"] else 0) or (
            event["first_line"] + LINES == total
        )
        for defect in event["defects"]:
            seen[defect["id"]] = seen.get(defect["id"], 0) + 1
            box = defect["box_px"]
            # What lies in the repeated lines alone was told with the frame before.
            if seen[defect["id"]] > 1:
                assert box["y"] + box["height"] > event["overlap_lines"]
    assert len(seen) > 5


# Files and streams.


def test_a_video_file_becomes_alerts(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    frames: Path,
) -> None:
    write_steel(tmp_path / "strip.avi", frames, 25)
    heard = subscriber(mosquitto.port)
    camera = {"kind": "video", "path": str(tmp_path / "strip.avi")}
    done = agent(config_file(mosquitto.url, camera=camera)).ended()
    assert done.code == 0, done.stderr
    heard.wait("state", 2)
    closes(done.summary)
    assert done.summary["frames_inspected"] == 24
    assert len(heard.of("event")) == done.summary["frames_defective"] > 5


@pytest.mark.faults
def test_a_stream_that_goes_away_and_comes_back_needs_no_hands(
    tmp_path: Path,
    free_port: int,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
    frames: Path,
) -> None:
    recording = tmp_path / "strip.avi"
    twice = tmp_path / "frames"
    twice.mkdir()
    for number, one in enumerate([*sorted(frames.iterdir())] * 10):  # enough for the whole test
        (twice / f"{number:03}{one.suffix}").symlink_to(one)
    write_steel(recording, twice, 10)
    heard = subscriber(mosquitto.port)

    def states() -> list[tuple[str, str]]:
        documents = [message.json() for message in heard.of("state")]
        return [(one["state"], one["camera"]["state"]) for one in documents]

    with rtsp_servers() as serve:
        server = serve(free_port, recording)
        camera = {"kind": "rtsp", "url": server.url}
        running = agent(config_file(mosquitto.url, camera=camera))
        heard.wait("event", 3)
        server.kill()
        eventually(lambda: ("online", "lost") in states(), "the state says that it is lost")
        lost = next(m.json()["camera"] for m in heard.of("state") if "lost" in m.payload.decode())
        assert lost["reason"] in ("no_answer", "not_found")
        assert lost["detail"].startswith(f"camera.url: {server.url}: ")
        server = serve(free_port, recording)
        eventually(lambda: states()[-1] == ("online", "streaming"), "the state says it is back")
        before = len(heard.of("event"))
        heard.wait("event", before + 3)
        running.terminate()
        done = running.ended()
    assert done.code == 0, done.stderr
    heard.wait("gap")
    eventually(lambda: states()[-1][0] == "offline", "its last word")
    closes(done.summary)
    # The broker never noticed: one connection, whose state changed with the camera alone.
    assert states()[0] == ("online", "streaming")
    assert [camera for state, camera in states() if state == "online"][-1] == "streaming"
    assert [state for state, _ in states()].count("offline") == 1
    assert done.stderr.count("broker: connected") == 1
    # A stream may begin with one image twice, and come in a burst.
    assert set(done.summary["gaps"]) <= {"camera_loss", "frozen", "overload"}
    gaps = [message.json()["data"] for message in heard.of("gap")]
    (gap,) = (one for one in gaps if one["reason"] == "camera_loss")
    assert gap["line_count"] is None
    assert gap["detail"].startswith("no_answer: ") or gap["detail"].startswith("not_found: ")
    assert done.summary["camera"]["losses"] == 1
    assert done.summary["gaps_of_unknown_length"] == 1
    for message in heard.messages:
        check_schema(message.kind, message.json())
    ids = [data["frame_id"] for data in heard.numbered()]
    assert len(set(ids)) == len(ids)


# What is no evidence of defect-free steel.


def test_black_and_saturated_images_are_declared_where_that_is_asked_for(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    frames: Path,
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, one in enumerate(sorted(frames.iterdir())[:4]):
        shutil.copy(one, folder / f"{number}0{one.suffix}")
    cv2.imwrite(str(folder / "05.png"), np.zeros((LINES, PIXELS), np.uint8))
    cv2.imwrite(str(folder / "15.png"), np.full((LINES, PIXELS), 255, np.uint8))
    shutil.copy(folder / "20.png", folder / "25.png")
    heard = subscriber(mosquitto.port)
    camera = {"path": str(folder), "implausible_images": "declare"}
    done = agent(config_file(mosquitto.url, camera=camera)).ended()
    assert done.code == 0, done.stderr
    heard.wait("state", 2)
    closes(done.summary)
    assert done.summary["gaps"] == {"black": 1, "frozen": 1, "saturated": 1}
    assert [m.json()["data"]["reason"] for m in heard.of("gap")] == ["black", "saturated", "frozen"]
    assert done.summary["camera"]["state"] == "impaired"


# At the start.


def test_a_camera_that_is_not_there_is_refused(
    config_file: Callable[..., Path], agent: Callable[..., Any], free_port: int
) -> None:
    camera = {"kind": "rtsp", "url": f"rtsp://127.0.0.1:{free_port}/strip"}
    done = agent(config_file("mqtt://127.0.0.1:1", camera=camera)).ended()
    assert done.code == 2
    *before, last = done.stderr.splitlines()
    assert all(line.startswith("INFO ") for line in before), done.stderr
    assert last == (
        f"edge-agent: camera.url: {camera['url']}: no stream there: wrong address or password, or "
        "the camera is off"
    )


@pytest.mark.faults
def test_a_camera_that_is_not_there_is_waited_for_where_that_is_asked_for(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    frames: Path,
) -> None:
    heard = subscriber(mosquitto.port)
    folder = tmp_path / "share"
    camera = {"path": str(folder), "follow": True, "wait": True}
    running = agent(config_file(mosquitto.url, camera=camera))
    (state, *_) = heard.wait("state")
    assert state.json()["state"] == "online"
    assert state.json()["camera"]["reason"] == "not_found"
    shutil.copytree(frames, folder)
    heard.wait("event", 3)
    running.terminate()
    done = running.ended()
    assert done.code == 0, done.stderr
    closes(done.summary)
    assert done.summary["gaps"] == {"camera_loss": 1}
