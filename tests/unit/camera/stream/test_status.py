"""What is no picture of a strip, and how the camera is said to be."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.camera.stream.image_checks import ImageChecks
from edge_agent.camera.stream.status import StreamStatus
from edge_agent.frame import GapReason, Image

MS = 1_000_000


def _noise(seed: int = 0, level: float = 100, sigma: float = 5) -> Image:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(level, sigma, (64, 200)), 0, 255).astype(np.uint8)


# Images.


def test_an_image_of_a_strip_is_plausible() -> None:
    look = ImageChecks()
    assert [look.fault(_noise(i)) for i in range(5)] == [None] * 5


@pytest.mark.parametrize("shape", [(64, 200), (64, 200, 3)])
def test_the_same_bytes_again_are_frozen(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(50, 200, shape, dtype=np.uint8)
    look = ImageChecks()
    assert look.fault(image) is None
    for _ in range(3):
        fault = look.fault(image.copy())
        assert fault is not None
        assert fault[0] is GapReason.FROZEN
    image[5, 5] += 1
    assert look.fault(image.copy()) is None


def test_what_was_before_an_outage_does_not_count() -> None:
    look = ImageChecks()
    look.fault(_noise())
    look.forget()
    assert look.fault(_noise()) is None


@pytest.mark.parametrize(
    ("level", "reason"),
    [(0, GapReason.BLACK), (3, GapReason.BLACK), (255, GapReason.SATURATED)],
)
def test_black_and_white_are_no_steel(level: int, reason: GapReason) -> None:
    image = np.full((100, 200), level, np.uint8)
    image[0, :150] = 128  # hot pixels and reflections do not change that
    fault = ImageChecks().fault(image)
    assert fault is not None
    assert fault[0] is reason
    assert "99.2% of the image" in fault[1]


@pytest.mark.parametrize("level", [0, 255])
def test_a_strip_narrower_than_the_view_is_looked_at(level: int) -> None:
    image = np.full((64, 200), level, np.uint8)
    image[:, 90:110] = _noise()[:, 90:110]
    assert ImageChecks().fault(image) is None


def test_dark_steel_is_not_black() -> None:
    assert ImageChecks().fault(_noise(level=9, sigma=2)) is None


# The condition.


def _feed(condition: StreamStatus, reasons: list[str], at_ms: int = 0, step_ms: int = 20) -> int:
    for reason in reasons:
        condition.blocks(reason, f"{reason}!", 1, at_ms * MS, at_ms)
        at_ms += step_ms
    return at_ms


def test_one_bad_block_of_a_slow_camera_changes_nothing_and_two_do() -> None:
    condition = StreamStatus(0)
    at = _feed(condition, ["", "", "frozen", "", "", ""], step_ms=3000)
    assert condition.status.state == "streaming"
    _feed(condition, ["frozen"], at)
    assert condition.status.state == "impaired"


def test_one_lost_packet_changes_nothing() -> None:
    condition = StreamStatus(0)
    _feed(condition, [""] * 30 + ["incomplete"] + [""] * 30)
    assert condition.status.state == "streaming"


def test_a_tenth_of_the_blocks_is_told_within_a_second() -> None:
    condition = StreamStatus(0)
    at = _feed(condition, [""] * 50)
    _feed(condition, [""] * 4 + ["incomplete"] + [""] * 4 + ["incomplete"], at)
    assert condition.status.state == "streaming"
    _feed(condition, (["incomplete"] + [""] * 4) * 10, at)
    assert (condition.status.state, condition.status.reason) == ("impaired", "incomplete")
    assert condition.status.detail == "incomplete!"


def test_it_is_streaming_again_after_five_good_seconds_and_does_not_flicker() -> None:
    condition = StreamStatus(0)
    at = _feed(condition, ["black"] * 10)
    since = condition.status.since_utc_ns
    at = _feed(condition, [""] * 200, at)  # four seconds
    at = _feed(condition, ["black"] * 10, at)
    assert condition.status.since_utc_ns == since
    at = _feed(condition, [""] * 240, at)
    assert condition.status.state == "impaired"
    _feed(condition, [""] * 30, at)
    assert condition.status.state == "streaming"


def test_another_trouble_is_told_when_the_first_is_over() -> None:
    condition = StreamStatus(0)
    at = _feed(condition, ["frozen"] * 10)
    at = _feed(condition, ["black"] * 10, at)
    assert condition.status.reason == "frozen"
    _feed(condition, ["black"] * 60, at)
    assert condition.status.reason == "black"


def test_lost_is_told_once_for_each_reason_and_back_at_once() -> None:
    condition = StreamStatus(0)
    condition.lost("no_answer", "gone", 5)
    condition.lost("no_answer", "gone again", 6)
    assert (condition.status.detail, condition.status.since_utc_ns) == ("gone", 5)
    condition.lost("not_found", "nowhere", 5)
    assert condition.status.reason == "not_found"
    condition.back(9)
    assert condition.status.state == "streaming"
