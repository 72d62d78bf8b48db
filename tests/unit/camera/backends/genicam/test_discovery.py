"""Of the cameras that answer, exactly one is meant."""

from __future__ import annotations

import pytest

from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera, choose
from edge_agent.camera.base import CameraLost, LossReason
from edge_agent.errors import CameraError

_TOP = DiscoveredCamera(
    kind="genicam", serial="1", user_name="strip", mac="00:30:53:00:00:01", ip="10.0.0.1"
)
_BOTTOM = DiscoveredCamera(
    kind="genicam", serial="2", user_name="strip", mac="00:30:53:00:00:02", ip="10.0.0.2"
)


@pytest.mark.parametrize(
    "wanted",
    [
        {"serial": "2"},
        {"ip": "10.0.0.2"},
        {"mac": "00:30:53:00:00:02"},
        {"mac": "00-30-53-00-00-02"},
        {"mac": "003053000002"},
        {"user_name": "strip", "serial": "2"},
    ],
)
def test_each_name_of_a_camera_finds_it(wanted: dict[str, str]) -> None:
    assert choose([_TOP, _BOTTOM], wanted) is _BOTTOM


def test_the_only_camera_needs_no_name() -> None:
    assert choose([_TOP], {"serial": "", "ip": ""}) is _TOP


def test_two_cameras_with_one_name_are_listed_in_one_line() -> None:
    with pytest.raises(CameraError) as refused:
        choose([_TOP, _BOTTOM], {"serial": "", "user_name": "strip"})
    text = str(refused.value)
    assert "\n" not in text
    assert "camera.user_name: strip: 2 cameras fit" in text
    assert "serial 1, 10.0.0.1" in text
    assert "serial 2, 10.0.0.2" in text
    assert not isinstance(refused.value, CameraLost)  # waiting would not help


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [({"serial": "3"}, "camera.serial: 3"), ({"serial": "1", "ip": "10.0.0.2"}, "10.0.0.2")],
)
def test_none_says_which_there_are(wanted: dict[str, str], shown: str) -> None:
    with pytest.raises(CameraLost, match="no such camera answers") as lost:
        choose([_TOP, _BOTTOM], wanted)
    assert lost.value.reason is LossReason.NOT_FOUND
    assert shown in str(lost.value)
    assert "serial 1" in str(lost.value)


def test_none_at_all() -> None:
    with pytest.raises(CameraLost, match="no camera at all"):
        choose([], {"serial": "3"})
