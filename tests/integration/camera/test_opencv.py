"""Video files, V4L2 devices, RTSP streams and GStreamer pipelines through OpenCV."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_agent.camera import Backend, CameraLost, EndOfStream, LossReason, open_backend
from edge_agent.camera.backends.opencv import OpenCvBackend
from edge_agent.config.camera import Camera as CameraConfig
from edge_agent.config.camera import GstreamerCamera, RtspCamera, V4l2Camera, VideoCamera
from edge_agent.errors import CameraError
from edge_agent.frame import Block
from tests.support.recorded import LINES, PIXELS, RecordedDevice, images, write_video
from tests.support.rtsp import RtspServer, rtsp_servers


def _all(backend: Backend) -> list[Block]:
    taken: list[Block] = []
    try:
        while True:
            block = backend.grab(5)
            if block is not None:
                taken.append(block)
    except EndOfStream:
        return taken
    finally:
        backend.close()


def _refusal(config: CameraConfig, kind: type[CameraError] = CameraError) -> str:
    with pytest.raises(CameraError) as caught:
        open_backend(config)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# Files.


def test_a_video_file_comes_frame_by_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames=7, codec="FFV1")  # without loss
    blocks = _all(open_backend(VideoCamera(path=str(tmp_path / "a.avi"))))
    assert {block.pixel_format for block in blocks} == {"BGR8"}
    assert [block.fault for block in blocks] == [""] * 7
    # FFV1 keeps every bit, but as YUV with half the colour: the brightness can be held to.
    for block, image in zip(blocks, images(7), strict=True):
        assert block.data is not None
        grey, true = (cv2.cvtColor(i, cv2.COLOR_BGR2GRAY) for i in (block.data, image))
        assert np.abs(grey.astype(int) - true).mean() < 4


def test_a_looped_file_begins_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames=3)
    camera = open_backend(VideoCamera(path=str(tmp_path / "a.avi"), loop=True))
    blocks = [camera.grab(1) for _ in range(7)]
    camera.close()
    data = [block.data for block in blocks if block and block.data is not None]
    for i in range(4):
        np.testing.assert_array_equal(data[i], data[i + 3])


def test_what_a_damaged_file_lacks_is_said(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames=50)
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "b.avi").write_bytes(whole[: len(whole) // 2])
    *blocks, last = _all(open_backend(VideoCamera(path=str(tmp_path / "b.avi"))))
    assert 10 < len(blocks) < 40
    assert last.data is None
    assert last.fault == f"the file ends after {len(blocks)} of 50 frames"


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.avi").write_text("no video", encoding="utf-8")
    for name, words in (
        ("gone.avi", "no such file; give a video"),
        ("notes.avi", "not a video that FFmpeg can read"),
    ):
        assert _refusal(VideoCamera(path=str(tmp_path / name))).endswith(words)


# Devices, from a recording: no kernel module can be loaded here.


@pytest.fixture
def device(tmp_path: Path) -> Callable[..., OpenCvBackend]:
    """`device(**settings)`: an open V4L2 camera over a recording."""
    recording = tmp_path / "strip.avi"
    write_video(recording, frames=6)
    path = tmp_path / "video0"
    path.touch()

    def make(**settings: Any) -> OpenCvBackend:
        config = V4l2Camera(device=str(path), **settings)
        return OpenCvBackend(config, lambda name, api, _: RecordedDevice(recording, name, api))

    return make


def test_a_device_gives_what_was_set(device: Callable[..., OpenCvBackend]) -> None:
    camera = device(width_px=PIXELS, height_px=LINES, fps=25, fourcc="MJPG")
    block = camera.grab(1)
    assert block
    assert (block.width_px, block.span.line_count) == (PIXELS, LINES)
    assert camera.live
    camera.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width_px": 9999}, "camera.width_px: the device does not take 9999, it gives 160"),
        ({"height_px": 7}, "camera.height_px: the device does not take 7, it gives 48"),
        ({"fps": 500}, "camera.fps: the device does not take 500, it gives 25"),
        ({"fourcc": "H264"}, "camera.fourcc: the device does not take 'H264'"),
    ],
)
def test_a_setting_the_device_does_not_take_is_refused(
    device: Callable[..., OpenCvBackend], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(CameraError) as caught:
        device(**settings)
    assert words in str(caught.value)
    device().close()  # and it was let go of


def test_a_device_that_is_pulled_out_is_lost_and_then_not_found(
    tmp_path: Path, device: Callable[..., OpenCvBackend]
) -> None:
    camera = device()
    assert camera.grab(1)
    (tmp_path / "video0").unlink()
    with pytest.raises(CameraLost) as caught:
        camera.grab(1)
    assert caught.value.reason is LossReason.NO_ANSWER
    camera.close()
    with pytest.raises(CameraLost) as caught:
        device()
    assert caught.value.reason is LossReason.NOT_FOUND
    (tmp_path / "video0").touch()
    camera = device()
    assert camera.grab(1)
    camera.close()


def test_a_device_that_another_program_has(device: Callable[..., OpenCvBackend]) -> None:
    first = device()
    with pytest.raises(CameraLost, match="another program has it") as caught:
        device()
    assert caught.value.reason is LossReason.CONTROL_TAKEN
    first.close()
    device().close()


def test_opencv_itself_refuses_what_is_no_device(tmp_path: Path) -> None:
    assert "no such device" in _refusal(V4l2Camera(device="/dev/no-such-video"), CameraLost)
    (tmp_path / "video7").touch()
    said = _refusal(V4l2Camera(device=str(tmp_path / "video7")), CameraLost)
    assert said.startswith(f"camera.device: {tmp_path}/video7: cannot be opened")


# Pipelines.


def test_without_gstreamer_a_pipeline_is_refused() -> None:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    said = _refusal(GstreamerCamera(pipeline="videotestsrc ! appsink"))
    assert said.startswith("camera.kind: gstreamer: this OpenCV is built without GStreamer")


# Streams.


@pytest.fixture
def rtsp_server(tmp_path: Path, free_port: int) -> Iterator[Callable[..., RtspServer]]:
    """`rtsp_server(*login)`: 50 frames at 25 a second; a new one takes the old one's port."""
    recording = tmp_path / "stream.avi"
    write_video(recording, frames=50)
    with rtsp_servers() as start:
        yield lambda *login: start(free_port, recording, *login)


@pytest.mark.system
def test_a_stream_comes_until_it_ends(rtsp_server: Callable[..., RtspServer]) -> None:
    camera = open_backend(RtspCamera(url=rtsp_server().url))
    assert camera.live
    taken = 0
    with pytest.raises(CameraLost) as caught:
        while camera.grab(5):
            taken += 1
    assert caught.value.reason is LossReason.NO_ANSWER
    assert 40 <= taken <= 50
    camera.close()


@pytest.mark.system
@pytest.mark.faults
def test_a_server_that_hangs_is_noticed(rtsp_server: Callable[..., RtspServer]) -> None:
    server = rtsp_server()
    camera = open_backend(RtspCamera(url=server.url))
    assert camera.grab(5)
    server.send(signal.SIGSTOP)
    with pytest.raises(CameraLost):
        while True:
            camera.grab(5)
    camera.close()
    server.send(signal.SIGCONT)


@pytest.mark.system
def test_a_stream_with_a_password(
    tmp_path: Path, rtsp_server: Callable[..., RtspServer], capfd: pytest.CaptureFixture[str]
) -> None:
    server = rtsp_server("anna", "open sesame/@:")
    secret = tmp_path / "password"

    def config() -> RtspCamera:
        return RtspCamera(url=server.url, username="anna", password_file=str(secret))

    assert "camera.password_file" in _refusal(config())
    secret.write_text("wrong\n", encoding="utf-8")
    said = _refusal(config(), CameraLost)
    assert "wrong address or password" in said
    assert "anna" not in said
    secret.write_text("open sesame/@:\n", encoding="utf-8")
    camera = open_backend(config())
    assert camera.grab(5)
    camera.close()
    assert "sesame" not in "".join(capfd.readouterr())


def test_where_no_server_is_there_is_no_stream(free_port: int) -> None:
    url = f"rtsp://127.0.0.1:{free_port}/strip"
    assert f"camera.url: {url}: no stream there" in _refusal(RtspCamera(url=url), CameraLost)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://a/b",
        "rtsp://",
        "rtsp://a:99999/b",
        "rtsp://a/b c",
        "rtsp://u:secret@a/b",
        "/dev/x",
    ],
)
def test_what_is_no_address_of_a_stream_is_refused_without_its_password(url: str) -> None:
    said = _refusal(RtspCamera(url=url))
    assert "not the address of a stream; give" in said
    assert "secret" not in said
