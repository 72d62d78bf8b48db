"""What the pipeline may expect of every camera, and `returning` of every backend.

Another backend adds one entry to BACKENDS: a function that makes, from a folder of its own, what
opens the camera. It may skip where its library or its fake camera is not installed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import genicam
import numpy as np
import pytest
from viva_genicam.testing import FakeGigeCamera, FakeU3vCamera

from edge_agent.camera import Backend, Camera, EndOfStream, StreamCounters, open_backend
from edge_agent.camera.backends.genicam.backend import GenicamBackend
from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera
from edge_agent.camera.backends.opencv import OpenCvBackend
from edge_agent.camera.line_camera import LineCamera
from edge_agent.camera.stream.pixel_formats import payload_bytes
from edge_agent.config.camera import (
    FolderCamera,
    GenicamCamera,
    GentlCamera,
    SimulatedCamera,
    V4l2Camera,
    VideoCamera,
)
from edge_agent.frame import Block, Frame, Gap
from tests.support import fake_cameras
from tests.support.recorded import RecordedDevice, write_video

_GRABS = 6

Opener = Callable[[], Backend]


def _folder(tmp_path: Path) -> Opener:
    """Frames of two kinds, and one file that is none."""
    rng = np.random.default_rng(0)
    for index in range(_GRABS):
        shape = (40, 60, 3) if index % 2 else (40, 60)
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    (tmp_path / "3.png").write_bytes(b"no picture")
    return lambda: open_backend(FolderCamera(path=str(tmp_path)))


def _endless_folder(tmp_path: Path) -> Opener:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        assert cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (10, 20), dtype=np.uint8))
    return lambda: open_backend(FolderCamera(path=str(tmp_path), loop=True))


def _followed_folder(tmp_path: Path) -> Opener:
    rng = np.random.default_rng(0)
    for index in range(_GRABS):
        image = rng.integers(0, 256, (10, 20), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    return lambda: open_backend(FolderCamera(path=str(tmp_path), follow=True))


def _simulated(_: Path) -> Opener:
    config = SimulatedCamera(width_px=800, height_px=50, realtime=False)
    return lambda: open_backend(config)


def _simulated_in_real_time(_: Path) -> Opener:
    config = SimulatedCamera(width_px=800, height_px=50, realtime=True)
    return lambda: open_backend(config)


def _video(tmp_path: Path) -> Opener:
    write_video(tmp_path / "strip.avi", frames=_GRABS)
    return lambda: open_backend(VideoCamera(path=str(tmp_path / "strip.avi")))


def _endless_video(tmp_path: Path) -> Opener:
    write_video(tmp_path / "strip.avi", frames=2)
    return lambda: open_backend(VideoCamera(path=str(tmp_path / "strip.avi"), loop=True))


def _v4l2(tmp_path: Path) -> Opener:
    """What OpenCV gives of a device, from a recording: there is none here."""
    recording = tmp_path / "strip.avi"
    write_video(recording, frames=_GRABS)
    device = tmp_path / "video0"
    device.touch()
    config = V4l2Camera(device=str(device), width_px=160, height_px=48)
    return lambda: OpenCvBackend(config, lambda name, api, _: RecordedDevice(recording, name, api))


@contextlib.contextmanager
def _gige(_: Path) -> Iterator[Opener]:
    config = GenicamCamera(interface="lo", features={"Width": 320, "Height": 64})
    with fake_cameras.gvcp_port(), FakeGigeCamera(width=320, height=64, fps=60):
        yield lambda: open_backend(config)


def _usb3(_: Path) -> Opener:
    fake = FakeU3vCamera(320, 64)
    found = DiscoveredCamera(kind="genicam", transport="usb3", serial="U3V")
    config = GenicamCamera(transport="usb3")
    return lambda: GenicamBackend(config, fake.connect(), found)


def _gentl(_: Path) -> Opener:
    features = {"PixelFormat": "Mono8", "AcquisitionFrameRate": 100.0}
    config = GentlCamera(
        cti=str(Path(genicam.__file__).with_name("viky.cti")), serial="1", features=features
    )
    return lambda: open_backend(config)


BACKENDS = [
    _folder,
    _endless_folder,
    _followed_folder,
    _simulated,
    _simulated_in_real_time,
    _video,
    _endless_video,
    _v4l2,
    _gige,
    _usb3,
    _gentl,
]


@pytest.fixture(params=BACKENDS)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    make: Callable[[Path], Opener | contextlib.AbstractContextManager[Opener]] = request.param
    made = make(tmp_path)
    if isinstance(made, contextlib.AbstractContextManager):
        with made as opener:
            yield opener
    else:
        yield made


@pytest.fixture
def camera(opener: Opener) -> Iterator[Camera]:
    opened = LineCamera(opener, check_images=False)
    yield opened
    opened.close()


@pytest.fixture
def backend(opener: Opener) -> Iterator[Backend]:
    opened = opener()
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
        stamps = [one.span.captured_monotonic_ns for one in taken]
        assert before <= stamps[0]
        assert stamps == sorted(stamps)
        assert stamps[-1] <= time.monotonic_ns()
        assert abs(taken[0].span.captured_utc_ns - before_utc) < 60e9

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

    def test_is_there(self, camera: Camera) -> None:
        _take(camera)
        assert camera.status.state != "lost"
        assert camera.counts.blocks_taken >= _GRABS
        assert camera.counts.losses == 0

    # Not where grey and colour come in turn: there a run ends with each frame.
    @pytest.mark.parametrize("opener", [b for b in BACKENDS if b is not _folder], indirect=True)
    @pytest.mark.parametrize(("lines", "overlap"), [(7, 0), (16, 5), (96, 0)])
    def test_recut_shows_the_same_lines(self, opener: Opener, lines: int, overlap: int) -> None:
        whole = LineCamera(opener, check_images=False)
        seen = np.concatenate([f.image for f in _take(whole) if isinstance(f, Frame)])
        whole.close()
        cut = LineCamera(
            opener, check_images=False, frame_lines=lines, overlap_lines=overlap, colour=True
        )
        line = 0
        while line + lines <= len(seen):
            frame = cut.grab(10)
            assert isinstance(frame, Frame)
            assert frame.first_line + frame.overlap_lines == line
            first, end = frame.first_line, frame.first_line + lines
            np.testing.assert_array_equal(frame.image, seen[first:end])
            line += frame.new_lines
        cut.close()


def _blocks(backend: Backend, count: int = _GRABS) -> list[Block]:
    taken: list[Block] = []
    end = time.monotonic() + 30
    while len(taken) < count and time.monotonic() < end:
        one = backend.grab(1.0)
        if one is not None:
            taken.append(one)
    assert len(taken) == count
    return taken


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestEveryBackend:
    def test_gives_blocks_of_the_size_they_say(self, backend: Backend) -> None:
        good = [block for block in _blocks(backend) if not block.fault]
        assert good
        for block in good:
            assert block.data is not None
            assert block.span.line_count is not None
            wanted = payload_bytes(block.pixel_format, block.span.line_count, block.width_px)
            assert block.data.nbytes == wanted

    def test_ids_rise_by_one_if_there_are_any(self, backend: Backend) -> None:
        ids = [block.block_id for block in _blocks(backend)]
        if ids[0] is None:
            assert set(ids) == {None}
            return
        first = ids[0] if backend.first_block_id is None else backend.first_block_id
        assert ids == list(range(first, first + _GRABS))

    def test_counts_nothing_as_lost(self, backend: Backend) -> None:
        _blocks(backend)
        counters = backend.counters()
        assert isinstance(counters, StreamCounters)
        assert not counters.lost_blocks

    def test_leaves_nothing_behind(self, opener: Opener) -> None:
        def once() -> None:
            backend = opener()
            _blocks(backend, 1)
            backend.close()
            backend.close()

        once()  # what a library opens once and for all
        before = _descriptors(), threading.active_count()
        for _ in range(8):
            once()
        assert (_descriptors(), threading.active_count()) == before


def test_an_end_is_said_each_time_it_is_asked_for(tmp_path: Path) -> None:
    camera = LineCamera(_folder(tmp_path))
    _take(camera)
    for _ in range(3):
        with pytest.raises(EndOfStream):
            camera.grab(0)
