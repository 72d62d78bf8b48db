"""A GenTL producer: viky.cti of the genicam wheel, a simulated camera."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import genicam
import pytest

from edge_agent.camera import CameraLost
from edge_agent.camera.backends.genicam import features
from edge_agent.camera.backends.genicam.gentl import GentlBackend, devices
from edge_agent.camera.line_camera import LineCamera
from edge_agent.config.camera import GentlCamera
from edge_agent.errors import CameraError
from edge_agent.frame import Block, Frame, Gap, GapReason

VIKY = str(Path(genicam.__file__).with_name("viky.cti"))
_FAST: dict[str, Any] = {"PixelFormat": "Mono8", "AcquisitionFrameRate": 200.0, "Width": 320}

pytestmark = pytest.mark.system


def _config(**keys: Any) -> GentlCamera:
    return GentlCamera(**{"cti": VIKY, "serial": "1", "features": _FAST} | keys)


def _taken(backend: GentlBackend, count: int) -> list[Block]:
    got: list[Block] = []
    end_s = time.monotonic() + 60
    while len(got) < count:
        assert time.monotonic() < end_s
        block = backend.grab(0.5)
        if block is not None:
            got.append(block)
    return got


def test_its_cameras_are_found() -> None:
    assert [(one.vendor, one.serial, one.device_id) for one in devices(VIKY)] == [
        ("Machine Vision Games Ltd.", "0", "VikyTL_DEV_red"),
        ("Machine Vision Games Ltd.", "1", "VikyTL_DEV_green"),
        ("Machine Vision Games Ltd.", "2", "VikyTL_DEV_blue"),
    ]


def test_200_blocks_and_as_many_after_a_reconnect() -> None:
    """Its frames are black, so that only how they come is judged."""
    backends: list[GentlBackend] = []

    def open_it() -> GentlBackend:
        backends.append(GentlBackend(_config()))
        return backends[-1]

    camera = LineCamera(open_it, check_images=False)
    try:
        before = _frames(camera, 200)
        backends[0].close()  # as when the grabber is gone
        after = _frames(camera, 200)
    finally:
        camera.close()
    assert len(backends) == 2
    gaps = [one for one in before + after if isinstance(one, Gap)]
    assert GapReason.CAMERA_LOSS in {one.reason for one in gaps}
    assert camera.counts.losses == 1
    line = 0
    for one in before + after:
        assert one.first_line == line
        line += one.line_count or 0
    assert [one.name for one in backends[1].opened.settings] == list(_FAST)


def _frames(camera: LineCamera, count: int) -> list[Frame | Gap]:
    items: list[Frame | Gap] = []
    end_s = time.monotonic() + 60
    while sum(isinstance(one, Frame) for one in items) < count:
        assert time.monotonic() < end_s
        one = camera.grab(0.5)
        if one is not None:
            items.append(one)
    return items


def test_blocks_are_ours_and_counted_from_1() -> None:
    backend = GentlBackend(_config())
    try:
        blocks = _taken(backend, 5)
        for block in blocks:
            assert block.data is not None
            block.data[:] = 7  # the producer's memory must not be it
            assert (block.pixel_format, block.width_px) == ("Mono8", 320)
            assert block.span.line_count == 400
        assert blocks[0].block_id == 1
        assert backend.counters().lost_blocks is not None
    finally:
        backend.close()
        backend.close()
    with pytest.raises(CameraLost):
        backend.grab(0.1)


def test_reconnects_leave_nothing_behind() -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208

    seen = []
    for _ in range(6):
        backend = GentlBackend(_config())
        _taken(backend, 2)
        backend.close()
        seen.append(held())
    # A thread of an earlier test may end meanwhile: fewer is right, more is a leak.
    assert all(last <= early for last, early in zip(seen[-1], seen[1], strict=True)), seen


def test_what_it_does_not_take_is_one_line() -> None:
    backend = GentlBackend(_config())
    try:
        for table, text in (
            ({"Widht": 1}, "Widht: this camera has no such feature; did you mean Width"),
            ({"AcquisitionFrameRate": 201.0}, "out of range, 1 to 200 Hz now"),
            ({"PixelFormat": "Mono99"}, "Mono99: not one of RGBa8, Mono8"),
            ({"PixelFormat": "RGBa8"}, "cannot be decoded here; of this camera's formats these"),
            ({"PayloadSize": 1}, "PayloadSize: 1: it cannot be written now"),
        ):
            with pytest.raises(CameraError, match=r"camera\.features") as refused:
                features.apply(backend.nodes, table)  # type: ignore[arg-type]
            assert text in str(refused.value)
            assert "\n" not in str(refused.value)
    finally:
        backend.close()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"cti": "/none.cti"}, "camera.cti: /none.cti: no such file"),
        ({"cti": __file__}, "is not a GenTL producer"),
        ({"serial": ""}, "3 cameras fit"),
        ({"serial": "", "device_id": "X"}, "camera.device_id: X: no such camera answers"),
        ({"features": {}}, "sends RGBa8, which cannot be decoded here; set one of Mono8"),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    keys: dict[str, Any], text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CameraError) as refused:
        GentlBackend(_config(**keys))
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


def test_a_camera_in_use_is_refused_and_goes_on() -> None:
    """This producer does not list it then."""
    first = GentlBackend(_config())
    try:
        with pytest.raises(CameraLost, match="no such camera answers"):
            GentlBackend(_config())
        assert len(_taken(first, 3)) == 3
    finally:
        first.close()
