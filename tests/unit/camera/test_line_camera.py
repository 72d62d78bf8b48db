"""All of a line camera together: whatever the camera does, each line is in a frame or in a gap."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.camera import Backend, CameraLost, EndOfStream, LossReason, open_camera
from edge_agent.camera.line_camera import LineCamera
from edge_agent.config.camera import SimulatedCamera
from edge_agent.errors import ConfigError
from edge_agent.frame import Frame, Gap
from tests.support.scripted import PIXELS, Scripted, block, line_image

LINES = 10
SECOND = 1_000_000_000


def _gone() -> CameraLost:
    return CameraLost(LossReason.NO_ANSWER, "gone")


def _all(camera: LineCamera) -> list[Frame | Gap]:
    taken: list[Frame | Gap] = []
    for _ in range(100_000):
        try:
            one = camera.grab(1)
        except EndOfStream:
            break
        if one is not None:
            taken.append(one)
    camera.close()
    return taken


def _camera(*sessions: list[Any], **settings: Any) -> LineCamera:
    rest = iter(sessions)

    def open_one() -> Backend:
        return Scripted(next(rest), first_block_id=0)

    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    return LineCamera(open_one, now_s=lambda: clock[0], sleep=sleep, **settings)


def _gaps(taken: list[Frame | Gap]) -> list[tuple[str, int, int | None]]:
    return [(g.reason.value, g.first_line, g.line_count) for g in taken if isinstance(g, Gap)]


FATES = ("good", "good", "good", "lost", "incomplete", "twice", "late", "frozen", "black")


@given(
    fates=st.lists(st.sampled_from(FATES), max_size=40),
    height=st.one_of(st.none(), st.integers(1, 35)),
    overlap=st.integers(0, 34),
)
@settings(deadline=None, max_examples=150)
def test_inspected_and_gaps_are_what_the_camera_counted(
    fates: list[str], height: int | None, overlap: int
) -> None:
    steps: list[Any] = []
    late = []
    for i, fate in enumerate(fates):
        one = block(i, LINES, captured_monotonic_ns=i)
        if fate == "lost":
            continue
        if fate == "late":
            late.append(one)
            continue
        if fate == "incomplete":
            one = block(i, LINES, captured_monotonic_ns=i, fault="2 of 9 packets missing")
        if fate == "frozen" and i and fates[i - 1] in ("good", "frozen"):
            one = block(i, LINES, captured_monotonic_ns=i, data=steps[-1].data.copy())
        if fate == "black":
            one = block(i, LINES, captured_monotonic_ns=i, data=np.zeros((LINES, PIXELS), np.uint8))
        steps += [one, *late]
        late = []
        steps += [one] if fate == "twice" else []
    # The stream knows how many it lost, those after the last block that came among them.
    lost = fates.count("lost") + len(late)
    steps.append(lost)
    settings = {"frame_lines": height, "overlap_lines": overlap % height if height else 0}
    camera = _camera([*steps, None], **settings)
    line = frames = 0
    for one in _all(camera):
        assert one.frame_id == frames
        if isinstance(one, Gap):
            assert one.first_line == line
            line += one.line_count or 0
            frames += one.frame_count
        else:
            assert one.first_line + one.overlap_lines == line
            line += one.new_lines
            frames += 1
    known = any(fate not in ("lost", "late") for fate in fates)
    assert line == (LINES * len(fates) if known else 0)
    counts = camera.counts
    assert counts.blocks_taken + counts.blocks_missing == len(fates)
    assert counts.blocks_rejected.get("incomplete", 0) == fates.count("incomplete")
    assert counts.blocks_duplicate == fates.count("twice")


def test_frames_are_the_lines_of_the_blocks_whatever_their_height() -> None:
    camera = _camera([block(i, LINES) for i in range(9)], frame_lines=30, overlap_lines=6)
    frames = _all(camera)
    assert [f.first_line for f in frames] == [0, 24, 48, 60]
    for frame in frames:
        assert isinstance(frame, Frame)
        np.testing.assert_array_equal(frame.image, line_image(frame.first_line, 30))


def test_an_outage_is_one_gap_and_lines_go_on_after_it() -> None:
    camera = _camera([block(0), block(1), _gone()], [block(0), block(1)], frame_lines=LINES)
    taken = _all(camera)
    assert _gaps(taken) == [("camera_loss", 20, None)]
    assert [f.first_line for f in taken if isinstance(f, Frame)] == [0, 10, 20, 30]
    assert camera.counts.losses == 1
    (gap,) = (g for g in taken if isinstance(g, Gap))
    assert gap.detail.startswith("no_answer: gone; away for ")
    assert gap.detail.endswith(", after block 1")


def test_with_an_encoder_the_lines_of_an_outage_are_known() -> None:
    first = [block(0, encoder_count=0), block(1, encoder_count=40), _gone()]
    second = [block(0, encoder_count=4 * 520)]
    taken = _all(_camera(first, second, encoder_counts_per_line=4))
    assert _gaps(taken) == [("camera_loss", 20, 500)]
    (gap,) = (g for g in taken if isinstance(g, Gap))
    assert (gap.span.encoder_count, gap.span.encoder_end) == (80, 2080)
    assert taken[-1].first_line == 520


def test_the_first_blocks_after_the_return_may_be_missing_too() -> None:
    taken = _all(_camera([block(0), _gone()], [block(3)]))
    assert _gaps(taken) == [("camera_loss", 10, None), ("camera_loss", 10, 30)]


def test_a_camera_that_is_away_at_the_end_is_declared() -> None:
    camera = _camera([block(0), _gone()])
    assert isinstance(camera.grab(0), Frame)
    assert camera.grab(0) is None
    assert camera.status.state == "lost"
    assert [(g.reason.value, g.line_count) for g in camera.drain() if isinstance(g, Gap)] == [
        ("camera_loss", None)
    ]
    assert camera.drain() == []
    camera.close()


def test_lines_that_wait_for_a_whole_frame_are_given_out_at_the_end() -> None:
    camera = _camera([block(i) for i in range(3)], frame_lines=25)
    assert isinstance(camera.grab(0), Frame)
    (rest,) = camera.drain()
    assert isinstance(rest, Frame)
    assert (rest.first_line, rest.new_lines) == (5, 5)
    camera.close()


def test_the_state_follows_the_camera() -> None:
    black = np.zeros((LINES, PIXELS), np.uint8)
    camera = _camera(
        [block(0), block(1, data=black), block(2, data=black), None, _gone()],
        [block(0), *[None] * 8],
    )
    seen = [camera.status.state]
    for _ in range(8):
        camera.grab(1)
        if camera.status.state != seen[-1]:
            seen.append(camera.status.state)
    assert seen == ["streaming", "impaired", "lost", "streaming"]
    camera.close()


def test_a_network_that_lets_nothing_through_impairs() -> None:
    camera = _camera([block(0), 1, None, 30, None, None])
    camera.grab(0)
    for _ in range(3):
        camera.grab(0)
    assert (camera.status.state, camera.status.reason) == ("impaired", "camera_loss")
    assert _gaps(camera.drain()) == [("camera_loss", 10, 300)]
    camera.close()


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"fault": "4 of 9 packets missing"}, "incomplete", "4 of 9 packets missing"),
        ({"data": np.zeros(7, np.uint8)}, "bad_frame", "7 bytes for 40x10 px of Mono8"),
        ({"pixel_format": "Confidence8"}, "bad_frame", "pixel format 'Confidence8' is not known"),
        ({"data": None}, "bad_frame", "no data"),
        ({"data": np.full((LINES, PIXELS), 255, np.uint8)}, "saturated", "100.0% of the image"),
    ],
)
def test_a_useless_block_is_a_gap_with_its_reason(
    changes: dict[str, Any], reason: str, words: str
) -> None:
    taken = _all(_camera([block(0), block(1, **changes), block(2)]))
    assert _gaps(taken) == [(reason, 10, 10)]
    (gap,) = (g for g in taken if isinstance(g, Gap))
    assert words in gap.detail


def test_implausible_images_are_inspected_where_that_was_asked_for() -> None:
    black = np.zeros((LINES, PIXELS), np.uint8)
    camera = _camera([block(i, data=black) for i in range(3)], check_images=False)
    assert _gaps(_all(camera)) == []


def test_a_line_rate_that_does_not_fit_is_told_and_inspected() -> None:
    blocks = [block(i, encoder_count=30 * i) for i in range(4)]
    camera = _camera(blocks, encoder_counts_per_line=4)
    taken = _all(camera)
    assert _gaps(taken) == []
    assert camera.counts.blocks_rejected == {"line_rate": 3}
    assert (camera.status.state, camera.status.reason) == ("impaired", "line_rate")
    assert "camera.encoder_counts_per_line" in camera.status.detail


def test_frames_are_dated_by_the_cameras_clock() -> None:
    now = time.time_ns()
    delays = (0, 3_000_000, 9_000_000)
    blocks = [
        block(i, camera_ns=5 + i * SECOND, captured_utc_ns=now + i * SECOND + delay)
        for i, delay in enumerate(delays)
    ]
    frames = _all(_camera(blocks))
    assert [f.span.captured_utc_ns for f in frames] == [now + i * SECOND for i in range(3)]


@pytest.mark.parametrize(("colour", "shape"), [(True, (1, 2, 3)), (False, (1, 2))])
def test_colour_is_kept_where_the_bundle_wants_it(colour: bool, shape: tuple[int, ...]) -> None:
    bgr = np.array([[[30, 20, 200], [1, 2, 3]]], np.uint8)
    one = block(0, 1, data=bgr, pixel_format="BGR8", width_px=2)
    (frame,) = _all(_camera([one], colour=colour))
    assert isinstance(frame, Frame)
    assert frame.image.shape == shape


# From the configuration.


def _open(**settings: Any) -> LineCamera:
    bundle_lines = settings.pop("bundle_lines", None)
    config = SimulatedCamera(width_px=800, height_px=37, realtime=False, **settings)
    camera = open_camera(config, bundle_lines=bundle_lines)
    assert isinstance(camera, LineCamera)
    return camera


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, 37),
        ({"frame_lines": 100}, 100),
        ({"frame_lines": "bundle", "bundle_lines": 256}, 256),
        ({"frame_lines": 100, "overlap_lines": 99}, 100),
    ],
)
def test_frames_are_as_high_as_configured(settings: dict[str, Any], lines: int) -> None:
    frame = _open(**settings).grab(5)
    assert isinstance(frame, Frame)
    assert frame.line_count == lines


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"frame_lines": "bundle"},
            r'^camera\.frame_lines: "bundle", but .* give a number of lines',
        ),
        (
            {"overlap_lines": 5},
            r"^camera\.overlap_lines: 5 with frames as the camera gives them; set",
        ),
        (
            {"frame_lines": 64, "overlap_lines": 64},
            r"^camera\.overlap_lines: 64 is not less than the 64 lines of a frame; give at most 63",
        ),
    ],
)
def test_heights_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _open(**settings)


def test_the_strip_is_the_same_however_it_was_cut() -> None:
    def lines(camera: LineCamera) -> np.ndarray:
        frames = [camera.grab(5) for _ in range(5)]
        return np.concatenate([f.image[f.overlap_lines :] for f in frames if isinstance(f, Frame)])

    one, other = lines(_open()), lines(_open(frame_lines=100, overlap_lines=30))
    np.testing.assert_array_equal(one, other[: len(one)])
