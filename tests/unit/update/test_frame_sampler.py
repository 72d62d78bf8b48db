"""Which frames a trial is given, and what counts for a proof; one thread plays both."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_agent.config.config import UpdateConfig
from edge_agent.frame import Frame, LineSpan
from edge_agent.pipeline.pipeline import Inspection
from edge_agent.update import frame_sampler
from edge_agent.update.frame_sampler import FrameSampler
from edge_agent.update.probation import Probation

NEW = "1" * 64


def inspected(
    frame_id: int = 0, sha256: str = NEW, ms: float = 1.0, failed: bool = False
) -> Inspection:
    frame = Frame(
        image=np.full((2, 3), frame_id, np.uint8),
        frame_id=frame_id,
        span=LineSpan(
            first_line=0,
            line_count=2,
            captured_utc_ns=0,
            captured_monotonic_ns=0,
        ),
    )
    return Inspection(frame, sha256, ms, failed)


def test_a_frame_is_picked_when_one_is_wanted_and_is_ours_to_keep() -> None:
    picker = FrameSampler()
    picker.see(inspected(1))
    with picker.picking():
        assert picker.take(0.0) is None, "seen before anybody wanted one"
        picker.see(inspected(2, failed=True))
        assert picker.take(0.0) is None
        seen = inspected(3)
        picker.see(seen)
        seen.frame.image[:] = 99
        taken = picker.take(0.0)
        assert taken is not None
        assert (taken.frame.frame_id, taken.frame.image.max()) == (3, 3)
        picker.see(inspected(4))
    assert picker.take(0.0) is None, "left over"


def test_after_frames_it_had_no_room_for_it_passes_over_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_sampler.random, "randrange", lambda end: end - 1)
    picker, taken = FrameSampler(), []
    with picker.picking():
        for frame_id in range(20):
            picker.see(inspected(frame_id))
            if frame_id % 2:
                one = picker.take(0.0)
                taken.append(one.frame.frame_id if one else None)
    assert taken == [0, None, None, 6, None, None, 12, None, None, 18]


def test_a_proof_counts_the_frames_of_its_bundle_until_there_are_enough() -> None:
    proof = Probation(NEW, msgspec.convert({"prove_frames": 3, "budget_ms": 5.0}, UpdateConfig))
    assert not proof.see(inspected(sha256="0" * 64, failed=True)), "another bundle's"
    for _ in range(2):
        assert not proof.see(inspected(ms=9.0))
    assert (proof.is_complete, proof.fault) == (False, "")
    proof.see(inspected(ms=9.0))
    assert proof.is_complete
    assert "update.budget_ms is 5" in proof.fault


def test_a_failed_frame_is_a_fault_at_once() -> None:
    proof = Probation(NEW, msgspec.convert({"prove_frames": 100}, UpdateConfig))
    assert proof.see(inspected(failed=True))
    assert not proof.is_complete
    assert proof.fault.startswith("failed on 1 of 1 frames")
