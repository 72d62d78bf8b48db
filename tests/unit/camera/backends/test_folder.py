"""A folder as a camera, and all the files that are no pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.camera import Camera, EndOfStream, open_camera
from edge_agent.camera.backends import folder as folder_camera
from edge_agent.config.camera import FolderCamera
from edge_agent.errors import CameraError
from edge_agent.frame import Frame, Gap, GapReason, Image
from edge_agent.image_files import read_image

WIDTH, LINES = 60, 40


def _noise(*shape: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _encoded(suffix: str, image: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()


PICTURE = _encoded(".png", _noise(LINES, WIDTH))


def _grab_all(folder: Path, **settings: bool) -> list[Frame | Gap]:
    camera = open_camera(FolderCamera(path=str(folder), **settings))
    taken: list[Frame | Gap] = []
    while True:
        try:
            one = camera.grab(0)
            if one is not None:
                taken.append(one)
        except EndOfStream:
            return taken


def _write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)


# Good folders.


def test_frames_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a10.png", "a2.png", "C.png"):  # not the order they are made in
        (tmp_path / name).write_bytes(PICTURE)
    taken = _grab_all(tmp_path)
    assert [one.source for one in taken if isinstance(one, Frame)] == [
        "C.png",
        "a10.png",
        "a2.png",
        "b.png",
    ]


def test_files_that_are_no_images_by_name_are_passed_over(tmp_path: Path) -> None:
    _write(tmp_path, notes__txt=b"", a__PNG=PICTURE, b__JpEg=_encoded(".jpg", _noise(LINES, WIDTH)))
    (tmp_path / ".png").write_bytes(b"a hidden file without a suffix")
    assert len(_grab_all(tmp_path)) == 2


@pytest.mark.parametrize("suffix", [".bmp", ".pgm", ".png", ".tif", ".tiff"])
def test_every_lossless_format_gives_its_pixels(tmp_path: Path, suffix: str) -> None:
    image = _noise(LINES, WIDTH)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(_encoded(suffix, image))
    np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize("suffix", [".bmp", ".png", ".ppm", ".tif"])
def test_colour_comes_as_rgb(tmp_path: Path, suffix: str) -> None:
    bgr = np.zeros((LINES, WIDTH, 3), np.uint8)
    bgr[:] = (30, 20, 200)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(_encoded(suffix, bgr))
    image = read_image(path)
    assert image.shape == (LINES, WIDTH, 3)
    assert np.unique(image.reshape(-1, 3), axis=0).tolist() == [[200, 20, 30]]


def test_colour_of_a_jpeg_comes_as_rgb(tmp_path: Path) -> None:
    bgr = np.zeros((LINES, WIDTH, 3), np.uint8)
    bgr[:] = (30, 20, 200)
    path = tmp_path / "a.jpg"
    path.write_bytes(_encoded(".jpg", bgr))
    np.testing.assert_allclose(read_image(path)[20, 20], (200, 20, 30), atol=4)


def test_a_camera_may_add_bytes_after_the_end(tmp_path: Path) -> None:
    image = _noise(LINES, WIDTH)
    for name, data in (("a.png", PICTURE), ("a.jpg", _encoded(".jpg", image))):
        path = tmp_path / name
        path.write_bytes(data + b"\0" * 200)
        assert read_image(path).shape == (LINES, WIDTH)


def test_a_loop_has_no_end_and_counts_on(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE, b__png=PICTURE)
    camera = open_camera(FolderCamera(path=str(tmp_path), loop=True))
    taken = [camera.grab(0) for _ in range(5)]
    assert [one.frame_id for one in taken] == [0, 1, 2, 3, 4]
    assert [one.first_line for one in taken] == [0, 40, 80, 120, 160]
    assert [one.source for one in taken if isinstance(one, Frame)] == [
        "a.png",
        "b.png",
        "a.png",
        "b.png",
        "a.png",
    ]


def test_a_folder_is_not_live(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE)
    assert not open_camera(FolderCamera(path=str(tmp_path))).live


# Bad files.


def _truncated_jpeg() -> bytes:
    data = _encoded(".jpg", _noise(LINES, WIDTH, 3))
    return data[: len(data) // 2]


def _truncated_png() -> bytes:
    return PICTURE[: len(PICTURE) // 2]


BAD_FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "truncated JPEG": ("b.jpg", _truncated_jpeg, "truncated: the file ends before"),
    "truncated PNG": ("b.png", _truncated_png, "truncated: the file ends before"),
    "JPEG of zeros after its header": (
        "b.jpg",
        lambda: _truncated_jpeg() + bytes(4096),
        "truncated: the file ends before",
    ),
    "text": ("b.jpg", lambda: b"these are not pixels\n", "not a picture"),
    "empty": ("b.png", lambda: b"", "not a picture"),
    "PNG signature alone": ("b.png", lambda: PICTURE[:8], "truncated"),
    "PNG with a flipped bit": (
        "b.png",
        lambda: PICTURE[:400] + bytes([PICTURE[400] ^ 4]) + PICTURE[401:],
        "not a picture",
    ),
    "16 bits a channel": (
        "b.png",
        lambda: _encoded(".png", _noise(LINES, WIDTH).astype(np.uint16) * 257),
        "uint16 pixels; 8 bits a channel are accepted",
    ),
    "four channels": (
        "b.png",
        lambda: _encoded(".png", _noise(LINES, WIDTH, 4)),
        "4 channels; grey or RGB are accepted",
    ),
    "another width": (
        "b.png",
        lambda: _encoded(".png", _noise(LINES, WIDTH + 1)),
        "61x40 px, but the run's frames are 60x40; set camera.mixed_sizes",
    ),
    "another height": (
        "b.png",
        lambda: _encoded(".png", _noise(LINES - 1, WIDTH)),
        "60x39 px, but the run's frames are 60x40; set camera.mixed_sizes",
    ),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_a_gap_and_the_strip_goes_on(tmp_path: Path, bad: str) -> None:
    name, make, words = BAD_FILES[bad]
    _write(tmp_path, a__png=PICTURE, c__png=PICTURE)
    (tmp_path / name).write_bytes(make())
    first, gap, last = _grab_all(tmp_path)
    assert isinstance(first, Frame)
    assert isinstance(gap, Gap)
    assert isinstance(last, Frame)
    assert gap.reason is GapReason.BAD_FRAME
    assert gap.detail.startswith(f"{name}: ")
    assert words in gap.detail
    assert len(gap.detail.splitlines()) == 1
    assert (gap.frame_id, gap.first_line, gap.line_count) == (1, LINES, LINES)
    assert (last.frame_id, last.first_line) == (2, 2 * LINES)
    times = [one.span.captured_monotonic_ns for one in (first, gap, last)]
    assert times == sorted(times)


def test_grey_among_rgb_is_of_the_same_size(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE, b__png=_encoded(".png", _noise(LINES, WIDTH, 3)))
    assert all(isinstance(one, Frame) for one in _grab_all(tmp_path))


def test_what_cannot_be_read_is_a_gap(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE)
    (tmp_path / "b.png").mkdir()
    (tmp_path / "c.png").symlink_to("gone.png")
    with (tmp_path / "d.png").open("wb") as file:
        file.truncate((256 << 20) + 1)  # takes no room on the disk
    _, folder, link, huge = _grab_all(tmp_path)
    assert isinstance(folder, Gap)
    assert isinstance(link, Gap)
    assert isinstance(huge, Gap)
    assert folder.detail == "b.png: cannot be read: Is a directory"
    assert link.detail == "c.png: cannot be read: No such file or directory"
    assert "larger than" in huge.detail
    assert huge.first_line == 3 * LINES


def test_a_file_that_goes_away_during_the_run_is_a_gap(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE, b__png=PICTURE)
    camera = open_camera(FolderCamera(path=str(tmp_path)))
    assert isinstance(camera.grab(0), Frame)
    (tmp_path / "b.png").unlink()
    gap = camera.grab(0)
    assert isinstance(gap, Gap)
    assert gap.line_count == LINES


def test_before_the_first_picture_lines_are_unknown(tmp_path: Path) -> None:
    _write(tmp_path, a__png=b"", b__png=b"", c__png=PICTURE, d__png=b"")
    one, two, frame, last = _grab_all(tmp_path)
    for gap, frame_id in ((one, 0), (two, 1)):
        assert isinstance(gap, Gap)
        assert (gap.frame_id, gap.first_line, gap.line_count) == (frame_id, 0, None)
    assert (frame.frame_id, frame.first_line) == (2, 0)
    assert (last.first_line, last.line_count) == (LINES, LINES)


def test_sizes_may_change_where_that_was_asked_for(tmp_path: Path) -> None:
    _write(
        tmp_path,
        a__png=PICTURE,
        b__png=_encoded(".png", _noise(25, 99)),
        c__png=b"",
        d__png=PICTURE,
    )
    a, b, c, d = _grab_all(tmp_path, mixed_sizes=True)
    assert isinstance(b, Frame)
    assert b.image.shape == (25, 99)
    # Of the unreadable one nobody knows: as many lines as the one before.
    assert isinstance(c, Gap)
    assert [one.line_count for one in (a, b, c, d)] == [40, 25, 25, 40]
    for before, after in pairwise((a, b, c, d)):
        assert after.first_line == before.first_line + (before.line_count or 0)


@pytest.mark.parametrize("name", [b"a\xff\xfe.png", b"a\nb.png", b"a\x1b[31m.png"])
def test_any_name_can_be_sent(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))  # noqa: PTH118  bytes
    try:
        path.write_bytes(PICTURE)
    except OSError:
        pytest.skip("this file system does not take such names")
    (frame,) = _grab_all(tmp_path)
    path.write_bytes(b"")
    (gap,) = _grab_all(tmp_path)
    assert isinstance(frame, Frame)
    assert isinstance(gap, Gap)
    for text in (frame.source, gap.detail):
        assert msgspec.json.decode(msgspec.json.encode(text)) == text
        assert text.isprintable()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@given(share=st.floats(0, 1))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_cut_file_is_refused_or_whole(tmp_path: Path, suffix: str, share: float) -> None:
    data = _encoded(suffix, _noise(LINES, WIDTH))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    whole = read_image(path)
    path.write_bytes(data[: round(share * len(data))])
    try:
        image = read_image(path)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        np.testing.assert_array_equal(image, whole)


@given(head=st.sampled_from([b"", b"\xff\xd8", b"\x89PNG", b"BM", b"P5\n"]), body=st.binary())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_a_picture_or_a_value_error(tmp_path: Path, head: bytes, body: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(head + body + (b"IEND\xff\xd9" if head else b""))
    try:
        image = read_image(path)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert image.dtype == np.uint8


# Bad folders.


def test_without_a_folder_there_is_no_camera(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"^camera\.path: .*gone.*No such file") as caught:
        open_camera(FolderCamera(path=str(tmp_path / "gone")))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE)
    with pytest.raises(CameraError, match=r"^camera\.path: .*Not a directory; give a folder"):
        open_camera(FolderCamera(path=str(tmp_path / "a.png")))


def test_an_empty_folder_is_no_camera(tmp_path: Path) -> None:
    _write(tmp_path, notes__txt=b"")
    with pytest.raises(CameraError, match=r"^camera\.path: .*no image files in this folder"):
        open_camera(FolderCamera(path=str(tmp_path)))


# Followed folders.


class Clock:
    """The folder's own time: it goes on while the folder waits, and at no other time. So a file
    that is being written is never at rest for as long as one that is finished."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self.time_ns, self.monotonic_ns = time.time_ns, time.monotonic_ns

    def monotonic(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(folder_camera, "time", one)
    return one


def _followed(folder: Path) -> Camera:
    return open_camera(FolderCamera(path=str(folder), follow=True))


def _sources(camera: Camera, timeout_s: float = 1.0) -> list[str]:
    taken = []
    while (one := camera.grab(timeout_s)) is not None:
        taken.append(one.source if isinstance(one, Frame) else one.detail)
    return taken


@pytest.mark.usefixtures("clock")
def test_files_are_taken_as_they_appear(tmp_path: Path) -> None:
    _write(tmp_path, b__png=PICTURE)
    camera = _followed(tmp_path)
    assert _sources(camera) == ["b.png"]
    assert _sources(camera, 0) == []
    _write(tmp_path, a__png=PICTURE)  # a name that was passed already is a new image all the same
    (tmp_path / "c.tmp").write_bytes(PICTURE)
    (tmp_path / "c.tmp").rename(tmp_path / "c.png")
    assert _sources(camera) == ["a.png", "c.png"]


@pytest.mark.usefixtures("clock")
def test_a_file_under_its_old_name_is_a_new_image(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE)
    camera = _followed(tmp_path)
    assert _sources(camera) == ["a.png"]
    _write(tmp_path, a__png=_encoded(".png", _noise(LINES, WIDTH, seed=1)))
    assert _sources(camera) == ["a.png"]
    (tmp_path / "a.png").touch()
    assert _sources(camera) == ["a.png"]
    assert _sources(camera) == []


@pytest.mark.usefixtures("clock")
def test_no_file_is_read_half_written(tmp_path: Path) -> None:
    camera = _followed(tmp_path)
    with (tmp_path / "slow.png").open("wb") as file:
        for start in range(0, len(PICTURE), 400):
            file.write(PICTURE[start : start + 400])
            file.flush()
            assert camera.grab(0.1) is None
    assert _sources(camera) == ["slow.png"]


@pytest.mark.usefixtures("clock")
def test_a_file_that_grows_holds_up_no_other(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE)
    camera = _followed(tmp_path)
    with (tmp_path / "0.png").open("wb") as file:
        seen = None
        for _ in range(200):
            file.write(b"x")
            file.flush()
            seen = camera.grab(0.05)
            if seen is not None:
                break
    assert isinstance(seen, Frame)
    assert seen.source == "a.png"


def test_what_is_no_picture_is_a_gap_and_others_follow(tmp_path: Path) -> None:
    _write(tmp_path, a__png=PICTURE, b__png=PICTURE[:100])
    (tmp_path / "c.png").symlink_to(tmp_path / "gone")
    said = _sources(_followed(tmp_path))
    assert said[0] == "c.png: cannot be read: No such file or directory"
    assert said[1:] == ["a.png", "b.png: truncated: the file ends before the picture does"]


def test_a_folder_that_goes_away_is_a_camera_that_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    _write(folder, a__png=PICTURE)
    camera = _followed(folder)
    assert _sources(camera) == ["a.png"]
    folder.rename(tmp_path / "away")
    assert camera.grab(0) is None
    assert (camera.status.state, camera.status.reason) == ("lost", "not_found")
    (tmp_path / "away").rename(folder)
    _write(folder, b__png=PICTURE)
    taken: list[Frame | Gap] = []
    end = time.monotonic() + 20
    while len(taken) < 3 and time.monotonic() < end:
        one = camera.grab(0.5)
        taken += [] if one is None else [one]
    # A share that was mounted again is read from the beginning: better twice than not at all.
    kinds = [one.source if isinstance(one, Frame) else one.reason.value for one in taken]
    assert kinds == ["camera_loss", "a.png", "b.png"]
    assert camera.status.state == "streaming"


def test_a_folder_is_looped_or_followed(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"^camera\.loop: true with camera\.follow; choose"):
        open_camera(FolderCamera(path=str(tmp_path), follow=True, loop=True))
    with pytest.raises(CameraError, match=r"^camera\.path: .*gone: No such file"):
        _followed(tmp_path / "gone")


# Real pictures.


def test_real_steel(shared_data: Path) -> None:
    folder = shared_data / "severstal" / "train_images"
    if not folder.is_dir():
        pytest.skip("the Severstal images are not beside this repository")
    taken = _grab_all(folder)
    assert taken
    for index, frame in enumerate(taken):
        assert isinstance(frame, Frame)
        assert frame.image.shape[:2] == (256, 1600)
        assert frame.first_line == 256 * index


def test_real_line_scan_images(shared_data: Path) -> None:
    paths = sorted((shared_data / "aitex").glob("*/*.png"))[:3]
    if not paths:
        pytest.skip("the AITEX images are not beside this repository")
    for path in paths:
        image = read_image(path)
        assert image.shape == (256, 4096)
        assert image.dtype == np.uint8
