"""What the camera commands say: what is not known, and what only some cameras have."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera
from edge_agent.camera.backends.genicam.features import Node
from edge_agent.camera.commissioning import exposure
from edge_agent.cli.camera import text


def test_found_cameras_are_one_a_line() -> None:
    usb = DiscoveredCamera(kind="v4l2", model="Webcam", device_id="/dev/video0")
    gige = DiscoveredCamera(
        kind="genicam", transport="gige", serial="7", ip="10.0.0.9", note="elsewhere"
    )
    first, second = text.found([usb, gige]).splitlines()
    assert first.startswith("v4l2 -: ")
    assert second.endswith("serial 7, 10.0.0.9  (elsewhere)")
    assert text.found([]) == "no camera answers"


@pytest.mark.parametrize(
    ("node", "line"),
    [
        (Node(name="A", kind="command", value=None, writable=True), "A - "),
        (Node(name="A", kind="float", value=0.1 + 0.2, writable=True, unit="ms"), "A 0.3 ms "),
        (Node(name="A", kind="integer", value=5, writable=True, minimum=1, maximum=9), "(1 to 9)"),
        (Node(name="A", kind="integer", value=5, writable=True, minimum=1), "A 5 "),
        (Node(name="A", kind="enumeration", value="X", writable=True, entries=("X", "Y")), "(X, Y"),
    ],
)
def test_a_feature_is_one_line_without_what_it_has_not(node: Node, line: str) -> None:
    plain = text.CameraFirstBlock(kind="video", pixel_format="Mono8", width_px=8, height_px=None)
    *before, last = text.looked(text.CameraInfo(plain, (node,))).splitlines()
    assert before == ["kind: video", "pixel_format: Mono8", "width_px: 8", "height_px: None"]
    assert line.strip() in " ".join(last.split())
    assert last == last.rstrip()
    shown = json.loads(text.looked_as_json(text.CameraInfo(plain, (node,))))
    assert (shown["height_px"], shown["features"]["A"]["value"]) == (None, node.value)


def test_live_leaves_out_light_and_focus_where_no_frame_came() -> None:
    none = text.LiveStatistics(
        state="lost",
        blocks_per_second=None,
        lines_per_second=None,
        blocks_missing=2,
        blocks_incomplete=1,
        packets_lost=None,
        packets_resent=None,
        focus=None,
        exposure=None,
    )
    line = "06:00:00 lost - blocks/s - lines/s, missing 2 incomplete 1"
    assert text.live(none, "06:00:00") == line
    assert json.loads(text.as_json(none))["exposure"] is None
    light = exposure(np.full((4, 4), 255, np.uint8))
    lit = msgspec.structs.replace(none, exposure=light)
    assert " | mean 255 p1 255 p99 255 sat 100.0 % [" in text.live(lit, "")
    assert json.loads(text.as_json(lit))["exposure"]["saturated_share"] == 1
