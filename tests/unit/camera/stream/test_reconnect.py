"""A camera that goes away and comes back."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.camera import Backend, CameraLost, EndOfStream, LossReason
from edge_agent.camera.line_camera import LineCamera
from edge_agent.camera.stream.reconnect import Outage, ReconnectingBackend
from edge_agent.errors import CameraError
from edge_agent.frame import Frame, Gap
from tests.support.scripted import Scripted, block

GONE = CameraLost(LossReason.NO_ANSWER, "camera.url: gone")
NOWHERE = CameraLost(LossReason.NOT_FOUND, "camera.url: nowhere")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def _opener(*openings: Backend | Exception) -> Callable[[], Backend]:
    """What is found one opening after the other."""
    rest = iter(openings)

    def open_one() -> Backend:
        found = next(rest)
        if isinstance(found, Exception):
            raise found
        return found

    return open_one


def _returning(
    *openings: Backend | Exception, wait: bool = False
) -> tuple[ReconnectingBackend, Clock]:
    clock = Clock()
    made = ReconnectingBackend(
        _opener(*openings), wait=wait, now_s=lambda: clock.now, sleep=clock.sleep
    )
    return made, clock


def _until_told(source: ReconnectingBackend) -> Outage:
    for _ in range(10_000):
        taken = source.grab(0.5)
        if isinstance(taken, Outage):
            return taken
    raise AssertionError("never back")


def test_it_comes_back_and_the_outage_is_told_before_the_next_block() -> None:
    source, clock = _returning(
        Scripted([block(0), GONE]), NOWHERE, NOWHERE, Scripted([block(0)], first_block_id=0)
    )
    assert source.grab(0.5)
    assert source.grab(0.5) is None
    assert source.lost
    outage = _until_told(source)
    assert (outage.reason, outage.detail, outage.tries) == ("not_found", str(NOWHERE), 2)
    assert not source.lost
    assert source.losses == 1
    assert source.first_block_id == 0
    assert source.grab(0.5)
    with pytest.raises(EndOfStream):
        source.grab(0.5)
    assert max(clock.slept) <= 0.5  # whoever grabs waits no longer than he said
    source.close()


def test_pauses_grow_to_ten_seconds_and_are_never_alike() -> None:
    source, clock = _returning(Scripted([GONE]), *[NOWHERE] * 200)
    source.grab(0.5)
    tries: list[float] = []
    while len(tries) < 12:
        before = source.outage.tries if source.outage else 0
        source.grab(100)
        if source.outage and source.outage.tries > before:
            tries.append(clock.now)
    pauses = [b - a for a, b in zip([0.0, *tries], tries, strict=False)]
    assert 0.17 <= pauses[0] <= 0.33
    assert all(7 <= pause <= 13 for pause in pauses[7:])
    assert len({round(pause, 6) for pause in pauses}) == len(pauses)


def test_a_camera_that_opens_and_gives_nothing_is_not_tried_ever_faster() -> None:
    source, clock = _returning(*[Scripted([GONE]) for _ in range(12)])
    while source.losses < 12:
        source.grab(100)
    assert clock.now > 30
    source.close()


def test_at_the_start_a_missing_camera_is_an_error_unless_it_is_waited_for() -> None:
    with pytest.raises(CameraLost, match="nowhere"):
        _returning(NOWHERE)
    source, _ = _returning(NOWHERE, NOWHERE, Scripted([block(0)]), wait=True)
    assert source.lost
    assert _until_told(source).reason == "not_found"
    source.close()


def test_what_a_person_has_to_mend_is_not_waited_for_at_the_start() -> None:
    with pytest.raises(CameraError, match="has no such feature"):
        _returning(CameraError("camera.features.Foo: the camera has no such feature"), wait=True)


def test_but_later_it_is_tried_again() -> None:
    refusal = CameraError("camera.width_px: not taken")
    source, _ = _returning(Scripted([GONE]), refusal, Scripted([block(0)]))
    outage = _until_told(source)
    assert (outage.reason, outage.detail) == ("refused", str(refusal))
    source.close()


def test_whatever_a_library_raises_is_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    broken = RuntimeError("segment\nlost")
    source, _ = _returning(Scripted([block(0), broken]), OSError("no\nroute"), Scripted([]))
    source.grab(0)
    with caplog.at_level(logging.CRITICAL):
        assert source.grab(0) is None
        assert source.outage
        assert (source.outage.reason, source.outage.detail) == (
            "no_answer",
            "RuntimeError: segment lost",
        )
        assert _until_told(source).detail == "OSError: no route"
    source.close()


def test_counters_go_on_over_an_outage() -> None:
    source, _ = _returning(
        Scripted([block(0), 3, block(1), GONE]), Scripted([4, block(0)]), wait=False
    )
    for _ in range(3):
        source.grab(0)
    _until_told(source)
    source.grab(0)
    assert source.counters.lost_blocks == 4
    assert source.stream.lost_blocks == 7
    assert source.stream.lost_packets == 14
    source.close()


@pytest.mark.faults
def test_a_thousand_reconnects_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # pytest keeps every record

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    opened = 0

    def open_one() -> Backend:
        nonlocal opened
        opened += 1
        return Scripted([block(0), block(1), GONE], first_block_id=0)

    clock = Clock()
    camera = LineCamera(open_one, frame_lines=7, now_s=lambda: clock.now, sleep=clock.sleep)
    before = descriptors(), threading.active_count()
    objects, lines, gaps = 0, 0, 0

    def count(one: Frame | Gap | None) -> None:
        nonlocal lines, gaps
        lines += one.new_lines if isinstance(one, Frame) else 0
        gaps += isinstance(one, Gap)

    while opened < 1001:
        count(camera.grab(60))
        if opened == 100 and not objects:
            gc.collect()
            objects = len(gc.get_objects())
    gc.collect()
    grown = len(gc.get_objects()) - objects
    assert Scripted.open_ones <= 1
    assert (descriptors(), threading.active_count()) <= before
    assert grown < 200, f"{grown} objects more after 900 more reconnects"
    for rest in camera.drain():
        count(rest)
    camera.close()
    assert Scripted.open_ones == 0
    assert camera.counts.losses == gaps == 1000
    assert lines == 20 * 1000
