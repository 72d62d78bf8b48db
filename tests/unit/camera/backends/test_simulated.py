"""The camera over the simulated strip."""

from __future__ import annotations

import time

import numpy as np

from edge_agent.camera import Camera, open_camera
from edge_agent.config.camera import SimulatedCamera
from edge_agent.frame import Frame
from edge_agent.simulation.rolled_steel import strip_of


def _camera(**settings: float | bool) -> Camera:
    settings = {"seed": 3, "width_px": 800, "height_px": 64, **settings}
    return open_camera(SimulatedCamera(**settings))


def _grab(camera: Camera, timeout_s: float = 10.0) -> Frame:
    frame = camera.grab(timeout_s)
    assert isinstance(frame, Frame)
    return frame


def test_only_real_time_is_live() -> None:
    assert _camera(realtime=True).live
    assert not _camera(realtime=False).live


def test_frames_are_the_strip_without_a_line_missing() -> None:
    camera = _camera(realtime=False, height_px=100)
    frames = [_grab(camera, 0) for _ in range(5)]
    assert [f.frame_id for f in frames] == [0, 1, 2, 3, 4]
    assert [f.first_line for f in frames] == [0, 100, 200, 300, 400]
    assert [f.span.encoder_count for f in frames] == [0, 100, 200, 300, 400]
    assert {f.line_count for f in frames} == {100}
    strip = strip_of(SimulatedCamera(seed=3, width_px=800))
    np.testing.assert_array_equal(np.concatenate([f.image for f in frames]), strip.render(0, 500))


def test_the_strip_is_the_one_that_was_configured() -> None:
    config = SimulatedCamera(seed=9, width_px=1000, defects_per_m=7, harmless_per_m=0.5)
    strip = strip_of(config)
    assert strip.seed == 9
    assert strip.settings.width_px == 1000
    assert strip.settings.defects_per_m == 7
    assert strip.settings.harmless_per_m == 0.5


def test_as_fast_as_asked_needs_no_time() -> None:
    camera = _camera(realtime=False, speed=1e-6)
    assert _grab(camera, 0).frame_id == 0
    assert _grab(camera, 0).frame_id == 1


def test_in_real_time_nothing_comes_before_its_last_line_has_passed() -> None:
    # At a millionth of the speed these 64 lines take hours.
    camera = _camera(realtime=True, speed=1e-6)
    began = time.monotonic()
    assert camera.grab(0.05) is None
    waited_s = time.monotonic() - began
    least_s = 64 * strip_of(SimulatedCamera(seed=3, width_px=800)).line_period_s(0) / 1e-6
    assert 0.05 <= waited_s < 0.8 * least_s
    assert camera.grab(0) is None


def test_a_timeout_loses_nothing() -> None:
    camera = _camera(realtime=True)  # some 10 ms a frame
    taken = []
    while len(taken) < 3:
        frame = camera.grab(0.002)
        if frame is not None:
            taken.append(frame)
    assert [f.frame_id for f in taken] == [0, 1, 2]
    assert [f.first_line for f in taken] == [0, 64, 128]


def test_real_time_keeps_the_strips_line_rate() -> None:
    strip = strip_of(SimulatedCamera(seed=3, width_px=800))
    began = time.monotonic()  # the strip runs from the moment its camera is made
    camera = _camera(realtime=True)
    count = 8
    for _ in range(count):
        _grab(camera)
    took_s = time.monotonic() - began
    least_s = sum(64 * strip.line_period_s(64 * i) for i in range(count))
    assert took_s >= 0.95 * least_s


def test_speed_multiplies() -> None:
    camera = _camera(realtime=True, speed=1e6)
    for frame_id in range(3):
        # The whole frame passes in 10 ns: it is there by the time it is asked for.
        assert _grab(camera, 0).frame_id == frame_id


def test_clocks_go_forward() -> None:
    camera = _camera(realtime=False)
    before_utc, before = time.time_ns(), time.monotonic_ns()
    frames = [_grab(camera) for _ in range(3)]
    times = [f.span.captured_monotonic_ns for f in frames]
    assert before <= times[0] <= times[1] <= times[2] <= time.monotonic_ns()
    assert abs(frames[0].span.captured_utc_ns - before_utc) < 60e9


def test_two_cameras_see_the_same_strip() -> None:
    one, other = (_grab(_camera(realtime=False)) for _ in range(2))
    np.testing.assert_array_equal(one.image, other.image)
