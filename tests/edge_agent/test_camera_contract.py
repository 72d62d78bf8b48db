"""What the pipeline may expect of every camera, whatever its backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.camera import Camera, EndOfStream, open_camera
from edge_agent.config import Camera as CameraConfig
from edge_agent.config import FolderCamera, SimulatedCamera
from edge_agent.frame import Frame, Gap

_GRABS = 6


def _folder(tmp_path: Path) -> CameraConfig:
    """Frames of two kinds, and one file that is none."""
    rng = np.random.default_rng(0)
    for index in range(_GRABS):
        shape = (40, 60, 3) if index % 2 else (40, 60)
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    (tmp_path / "3.png").write_bytes(b"no picture")
    return FolderCamera(path=str(tmp_path))


def _endless_folder(tmp_path: Path) -> CameraConfig:
    image = np.zeros((10, 20), np.uint8)
    for name in ("a.png", "b.png"):
        assert cv2.imwrite(str(tmp_path / name), image)
    return FolderCamera(path=str(tmp_path), loop=True)


def _simulated(_: Path) -> CameraConfig:
    return SimulatedCamera(width_px=800, height_px=50, realtime=False)


def _simulated_in_real_time(_: Path) -> CameraConfig:
    return SimulatedCamera(width_px=800, height_px=50, realtime=True)


@pytest.fixture(params=[_folder, _endless_folder, _simulated, _simulated_in_real_time])
def camera(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Camera]:
    make: Callable[[Path], CameraConfig] = request.param
    opened = open_camera(make(tmp_path))
    yield opened
    opened.close()


def _take(camera: Camera, count: int = _GRABS) -> list[Frame | Gap]:
    taken: list[Frame | Gap] = []
    end = time.monotonic() + 30
    while len(taken) < count and time.monotonic() < end:
        one = camera.grab(1.0)
        if one is not None:
            taken.append(one)
    assert len(taken) == count
    return taken


class TestEveryCamera:
    def test_says_whether_it_waits_for_us(self, camera: Camera) -> None:
        assert camera.live in (True, False)

    def test_counts_frames_from_0_without_a_hole(self, camera: Camera) -> None:
        assert [one.frame_id for one in _take(camera)] == list(range(_GRABS))

    def test_accounts_for_every_line(self, camera: Camera) -> None:
        line = 0
        for one in _take(camera):
            assert one.first_line == line
            assert one.line_count is not None
            assert one.line_count > 0
            line += one.line_count

    def test_gives_8_bit_grey_or_rgb(self, camera: Camera) -> None:
        frames = [one for one in _take(camera) if isinstance(one, Frame)]
        assert frames
        for frame in frames:
            assert frame.image.dtype == np.uint8
            assert frame.image.ndim == 2 or frame.image.shape[2:] == (3,)
            assert frame.line_count == frame.image.shape[0]
            assert frame.image.flags.c_contiguous

    def test_stamps_both_clocks(self, camera: Camera) -> None:
        before_utc, before = time.time_ns(), time.monotonic_ns()
        taken = _take(camera)
        stamps = [one.captured_monotonic_ns for one in taken]
        assert before <= stamps[0]
        assert stamps == sorted(stamps)
        assert stamps[-1] <= time.monotonic_ns()
        assert abs(taken[0].captured_utc_ns - before_utc) < 60e9

    def test_keeps_no_hand_on_what_it_gave(self, camera: Camera) -> None:
        frames = [one for one in _take(camera) if isinstance(one, Frame)]
        others = [frame.image.copy() for frame in frames[1:]]
        frames[0].image[:] = 7
        for frame, before in zip(frames[1:], others, strict=True):
            assert not np.shares_memory(frames[0].image, frame.image)
            np.testing.assert_array_equal(frame.image, before)

    def test_can_be_closed_twice(self, camera: Camera) -> None:
        _take(camera, 1)
        camera.close()
        camera.close()

    def test_can_be_closed_before_the_first_frame(self, camera: Camera) -> None:
        camera.close()
        camera.close()


def test_an_end_is_said_each_time_it_is_asked_for(tmp_path: Path) -> None:
    camera = open_camera(_folder(tmp_path))
    _take(camera)
    for _ in range(3):
        with pytest.raises(EndOfStream):
            camera.grab(0)
