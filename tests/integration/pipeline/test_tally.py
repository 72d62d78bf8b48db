"""What is counted, and the word to systemd."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.frame import Frame, Gap, GapReason, LineSpan
from edge_agent.pipeline.tally import Tally
from edge_agent.supervision.systemd import sd_notify, watchdog_s


def _span(lines: int | None) -> LineSpan:
    return LineSpan(first_line=0, line_count=lines, captured_utc_ns=0, captured_monotonic_ns=0)


def _gap(reason: GapReason = GapReason.OVERLOAD) -> Gap:
    return Gap(
        reason=reason,
        frame_id=0,
        span=_span(256),
        detail="",
    )


def _frame(lines: int, overlap_lines: int = 0) -> Frame:
    return Frame(
        image=np.zeros((lines, 2), np.uint8),
        frame_id=0,
        span=_span(lines),
        overlap_lines=overlap_lines,
    )


def _inspect(tally: Tally, *, lines: int = 256, **times_ms: float) -> None:
    tally.frame_inspected(lines=lines, suspect=False, defective=False, times_ms=times_ms)


# Counts.


def test_a_new_tally_is_empty() -> None:
    tally = Tally()
    assert (tally.captured, tally.inspected, tally.suspect, tally.defective) == (0, 0, 0, 0)
    assert (tally.lines_inspected, tally.in_work) == (0, 0)
    assert tally.gaps() == {}
    assert tally.times() == {}


@given(
    frames=st.lists(
        st.one_of(
            st.sampled_from(GapReason),
            st.tuples(st.integers(1, 4096), st.sampled_from(("clean", "suspect", "defective"))),
            st.none(),  # taken, and not judged yet
        )
    )
)
@settings(deadline=None)
def test_every_frame_is_inspected_or_in_a_gap_or_in_work(
    frames: list[GapReason | tuple[int, str] | None],
) -> None:
    tally = Tally()
    for number, frame in enumerate(frames):
        if isinstance(frame, GapReason):
            tally.frame_captured(_gap(frame))
            tally.gap(_gap(frame))
            continue
        tally.frame_captured(_frame(frame[0] if frame else 10))
        if frame is not None:
            tally.frame_inspected(
                lines=frame[0],
                suspect=frame[1] != "clean",
                defective=frame[1] == "defective",
                times_ms={"total": 1.0},
            )
        assert number < tally.captured <= len(frames)
        assert tally.captured == tally.inspected + sum(tally.gaps().values()) + tally.in_work
    judged = [frame for frame in frames if isinstance(frame, tuple)]
    assert tally.captured == len(frames)
    assert tally.in_work == frames.count(None)
    assert tally.lines_in_work == 10 * frames.count(None)
    missed = sum(tally.gap_lines().values())
    assert tally.lines_captured == tally.lines_inspected + missed + tally.lines_in_work
    assert tally.inspected == len(judged)
    assert tally.lines_inspected == sum(lines for lines, _ in judged)
    assert tally.suspect == sum(kind != "clean" for _, kind in judged)
    assert tally.defective == sum(kind == "defective" for _, kind in judged)
    reasons = [frame for frame in frames if isinstance(frame, GapReason)]
    assert tally.gaps() == {r.value: reasons.count(r) for r in GapReason if r in reasons}


def test_threads_lose_no_count() -> None:
    tally = Tally()
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(500):
            tally.frame_captured(_frame(2))
            _inspect(tally, lines=2, gate=1.0)
            tally.frame_captured(_gap())
            tally.gap(_gap())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tally.captured, tally.inspected, tally.in_work) == (4000, 2000, 0)
    assert tally.lines_inspected == 4000
    assert tally.gaps() == {"overload": 2000}
    assert tally.times()["gate"].count == 2000


def test_a_gap_counts_the_frames_it_stands_for() -> None:
    tally = Tally()
    gap = replace(_gap(GapReason.CAMERA_LOSS), frame_count=7, span=_span(7 * 256))
    tally.frame_captured(gap)
    tally.gap(gap)
    assert (tally.captured, tally.in_work) == (7, 0)
    assert tally.gaps() == {"camera_loss": 7}
    assert tally.gap_lines() == {"camera_loss": 1792}


def test_a_gap_of_unknown_length_is_counted_as_such() -> None:
    tally = Tally()
    gap = replace(_gap(GapReason.CAMERA_LOSS), span=_span(None))
    tally.frame_captured(gap)
    tally.gap(gap)
    assert (tally.lines_captured, tally.lines_in_work) == (0, 0)
    assert tally.gaps_of_unknown_length == 1


def test_lines_that_two_frames_show_are_counted_once() -> None:
    tally = Tally()
    for repeated in (0, 32):
        tally.frame_captured(_frame(256, repeated))
        _inspect(tally, lines=256 - repeated)
    assert (tally.lines_captured, tally.lines_inspected, tally.lines_in_work) == (480, 480, 0)


# Times.


def test_percentiles_of_each_stage() -> None:
    tally = Tally()
    for ms in range(1, 101):
        _inspect(tally, gate=float(ms), **({"segment": 7.0} if ms % 2 else {}))
    times = tally.times()
    assert set(times) == {"gate", "segment"}
    gate = times["gate"]
    assert gate.count == 100
    assert gate.p50_ms == pytest.approx(50.5)
    assert gate.p95_ms == pytest.approx(95.05)
    assert gate.p99_ms == pytest.approx(99.01)
    segment = times["segment"]
    assert (segment.count, segment.p50_ms, segment.p99_ms) == (50, 7.0, 7.0)


@given(
    times=st.lists(st.floats(0, 1e4, allow_subnormal=False), min_size=1, max_size=60),
)
@settings(deadline=None)
def test_percentiles_are_of_what_was_measured(times: list[float]) -> None:
    tally = Tally()
    for ms in times:
        _inspect(tally, gate=ms)
    gate = tally.times()["gate"]
    assert gate.count == len(times)
    assert gate.p50_ms <= gate.p95_ms <= gate.p99_ms
    # By hand: the percentile lies between the two neighbours of its place among the sorted.
    ordered = sorted(times)
    for percent, said in (50, gate.p50_ms), (95, gate.p95_ms), (99, gate.p99_ms):
        place = percent / 100 * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        expected = ordered[low] + (place - low) * (ordered[high] - ordered[low])
        assert said == pytest.approx(expected, abs=6e-4)


def test_percentiles_are_of_late_and_counts_of_all() -> None:
    tally = Tally()
    for _ in range(500):
        _inspect(tally, gate=1000.0)
    for _ in range(20_000):
        _inspect(tally, gate=1.0)
    gate = tally.times()["gate"]
    assert gate.count == 20_500
    assert gate.p99_ms == 1.0


# systemd.


@pytest.fixture
def systemd() -> Iterator[tuple[socket.socket, Path]]:
    """A datagram socket in the file system, as systemd's; its path is short."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
    ):
        path = Path(folder) / "notify"
        listener.bind(str(path))
        listener.settimeout(10)
        yield listener, path


def test_notify_sends_one_datagram(
    systemd: tuple[socket.socket, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, path = systemd
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    sd_notify("READY=1")
    sd_notify("STATUS=3 frames inspected, größer")
    assert listener.recv(4096) == b"READY=1"
    assert listener.recv(4096) == "STATUS=3 frames inspected, größer".encode()


def test_notify_to_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"linegate-test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        sd_notify("WATCHDOG=1")
        assert listener.recv(4096) == b"WATCHDOG=1"


def test_notify_without_systemd_is_nothing(
    systemd: tuple[socket.socket, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, _ = systemd
    listener.setblocking(False)
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        else:
            monkeypatch.setenv("NOTIFY_SOCKET", value)
        sd_notify("READY=1")
    with pytest.raises(BlockingIOError):
        listener.recv(4096)


def test_notify_to_a_systemd_that_is_gone_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (tmp_path / "gone", "@linegate-nobody-listens", "x" * 200):
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        sd_notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "waits_s"),
    [
        ("30000000", None, 30.0),
        ("500000", "own", 0.5),
        ("30000000", "", 30.0),
        ("30000000", "another", None),
        (None, None, None),
        ("", "own", None),
        ("soon", None, None),
        ("-5", None, None),
        ("0", None, None),
        ("²", None, None),
    ],
)
def test_how_long_systemd_waits(
    usec: str | None, pid: str | None, waits_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = {"own": str(os.getpid()), "another": str(os.getpid() + 1), "": ""}
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pids[pid] if pid else pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_s() == waits_s
