"""Pictures of defects: taken where they are wanted, small enough, behind their events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.config.config import EvidenceConfig
from edge_agent.image_files import read_image
from edge_agent.pipeline.evidence import RateLimit, jpeg


def decoded(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert image is not None
    return np.asarray(image, np.uint8)


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


def test_a_grey_picture_stays_grey_and_a_colour_one_keeps_its_order() -> None:
    grey = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (32, 1))
    data, shape = jpeg(grey, EvidenceConfig(jpeg_quality=100))
    assert shape == (32, 64)
    assert np.abs(decoded(data).astype(int) - grey).max() <= 2
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255  # RGB
    seen = decoded(jpeg(red, EvidenceConfig(jpeg_quality=100))[0])[8, 8]
    assert seen[2] > 240
    assert max(seen[:2]) < 15


def test_a_picture_that_is_too_large_is_halved_until_it_fits() -> None:
    rules = EvidenceConfig(max_bytes=16384)
    data, (lines, pixels) = jpeg(noise(256, 1600), rules)
    assert len(data) <= 16384
    assert decoded(data).shape == (lines, pixels)
    assert 1600 / pixels == 256 / lines > 1
    assert jpeg(noise(64, 64), rules)[1] == (64, 64)


def test_a_picture_wider_than_jpeg_allows_is_halved() -> None:
    data, shape = jpeg(np.full((4, 70_000), 90, np.uint8), EvidenceConfig())
    assert decoded(data).shape == shape == (2, 35_000)


def test_an_allowance_fills_with_time_and_not_beyond() -> None:
    now_s = 100.0
    allowance = RateLimit(3, lambda: now_s)
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    now_s += 19
    assert not allowance.take()
    now_s += 2
    assert allowance.take()
    assert not allowance.take()
    now_s += 3600
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


@pytest.mark.system
@pytest.mark.parametrize("per_minute", [6000, 3])
def test_events_say_where_their_pictures_are(
    per_minute: int,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
    frames: Path,
) -> None:
    heard = subscriber(mosquitto.port)
    config = config_file(
        mosquitto.url, evidence={"pictures": True, "per_minute": per_minute, "jpeg_quality": 95}
    )
    done = agent(config).ended()
    assert done.code == 0, done.stderr
    heard.wait("state", 2)  # online, and offline, which is the last message

    order = [m.topic.rpartition("linegate/site/line/agent/")[2] for m in heard.messages]
    events = heard.of("event")
    assert len(events) == done.summary["frames_defective"] > 5
    pictured = []
    for event in events:
        check_schema("event", event.json())
        data = event.json()["data"]
        if not data["evidence"]:
            continue
        pictured.append(data)
        topic = f"evidence/{data['evidence']}"
        (picture,) = (m for m in heard.messages if m.topic.endswith(topic))
        assert order.index(topic) > heard.messages.index(event)
        taken = decoded(picture.payload)
        frame = read_image(frames / data["source"])
        assert taken.shape == frame.shape
        assert np.abs(taken.astype(int) - frame).mean() < 3
    assert sum(kind.startswith("evidence/") for kind in order) == len(pictured)
    if per_minute == 6000:
        assert len(pictured) == len(events)
    else:  # three at once, and one more for each 20 s that the run took
        assert 3 <= len(pictured) < len(events)
    assert done.summary["messages_pending"] == 0


@pytest.mark.system
def test_no_picture_unless_asked_for(
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
) -> None:
    heard = subscriber(mosquitto.port)
    assert agent(config_file(mosquitto.url)).ended().code == 0
    heard.wait("state", 2)
    assert {one.json()["data"]["evidence"] for one in heard.of("event")} == {""}
    assert not [m for m in heard.messages if "/evidence/" in m.topic]
