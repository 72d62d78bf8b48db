"""What two bundles made of the same frames, summed up; and the rules that say no."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_agent.config.config import UpdateConfig
from edge_agent.update.comparison import (
    BundleComparison,
    FrameComparison,
    FrameJudgement,
    fault_of_proof,
    is_over,
    objection,
)

TOO_SLOW = (
    "takes 1.51 times as long, 1.5 is the most; give update.budget_ms if the line has the time"
)


def rules(**keys: Any) -> UpdateConfig:
    return msgspec.convert(keys, UpdateConfig)


def look(
    frame_id: int, old: FrameJudgement, new: FrameJudgement, both_px: int = 0, either_px: int = 0
) -> FrameComparison:
    return FrameComparison(
        frame_id=frame_id, running=old, candidate=new, both_px=both_px, either_px=either_px
    )


def judged(
    suspect: bool = False, defects: int = 0, ms: float = 10.0, error: str = ""
) -> FrameJudgement:
    return FrameJudgement(suspect=suspect, defects=defects, judged_ms=ms, error=error)


def of(*looks: FrameComparison, live_ms: float = 4.0) -> BundleComparison:
    comparison = BundleComparison()
    for one in looks:
        comparison.add(one, live_ms)
    return comparison


def test_what_differs_is_counted_and_named() -> None:
    report = of(
        look(1, judged(), judged(ms=20)),
        look(2, judged(True, 2), judged(True, 3, ms=20), both_px=60, either_px=100),
        look(3, judged(True, 1), judged(ms=20), either_px=50),
        look(4, judged(), judged(True, 1, ms=20), either_px=50),
        look(5, judged(), judged(error="ValueError: no")),
    ).report()
    assert (report.frames, report.errors_running, report.errors_candidate) == (5, 0, 1)
    assert (report.changed_to_suspect, report.changed_to_clean, report.turned_frames) == (
        1,
        1,
        (3, 4),
    )
    assert (report.defective_running, report.defective_candidate) == (2, 2)
    assert (report.defects_running, report.defects_candidate) == (3, 4)
    assert report.mask_iou == 0.3
    assert (report.p50_ms_running, report.p50_ms_candidate, report.slowdown) == (10, 20, 2)
    assert report.expected_p95_ms == 8, "the line's own time, times the slowdown"


def test_nothing_seen_differs_in_nothing() -> None:
    report = BundleComparison().report()
    assert (report.frames, report.mask_iou, report.slowdown) == (0, 1, 0)
    assert objection(BundleComparison(), rules()) == ""


def test_the_first_frames_that_turned_are_named_and_no_more() -> None:
    report = of(*(look(i, judged(), judged(True)) for i in range(100))).report()
    assert (report.changed_to_suspect, report.turned_frames) == (100, tuple(range(20)))


@pytest.mark.parametrize(
    ("keys", "new", "reason"),
    [
        ({}, judged(), ""),
        ({}, judged(ms=15), ""),
        ({}, judged(ms=15.1), TOO_SLOW),
        ({"budget_ms": 4}, judged(ms=10), ""),
        ({"budget_ms": 7}, judged(ms=15.1), ""),
        (
            {"budget_ms": 4},
            judged(ms=11),
            "would take 4.4 ms a frame (p95), update.budget_ms is 4",
        ),
        ({}, judged(True), ""),
        (
            {"max_turned_share": 0.9},
            judged(True),
            "judges 100.0% of the frames otherwise, update.max_turned_share is 0.9",
        ),
        (
            {},
            judged(error="ValueError: no"),
            "failed on 4 of 4 frames: ValueError: no",
        ),
    ],
)
def test_each_rule_has_its_reason(keys: dict[str, Any], new: FrameJudgement, reason: str) -> None:
    assert objection(of(*(look(i, judged(), new) for i in range(4))), rules(**keys)) == reason


def test_a_frame_on_which_both_fail_is_not_held_against_the_new_one() -> None:
    broken = judged(error="ValueError: no")
    comparison = of(*(look(i, broken, broken) for i in range(4)))
    assert (comparison.errors, objection(comparison, rules())) == (0, "")
    assert comparison.report().errors_candidate == 4


def test_a_trial_ends_with_its_frames_or_with_its_time_and_enough_of_them() -> None:
    def seen(frames: int) -> BundleComparison:
        return of(*(look(i, judged(), judged()) for i in range(frames)))

    assert not is_over(seen(199), 599, rules())
    assert is_over(seen(200), 0, rules())
    assert not is_over(seen(19), 3600, rules())
    assert is_over(seen(20), 600, rules())
    assert is_over(seen(3), 0, rules(trial_frames=3))


def test_a_trial_ends_with_the_first_frame_that_the_candidate_alone_fails_on() -> None:
    failed = judged(error="no")
    assert not is_over(of(look(1, failed, failed), look(2, failed, judged())), 0, rules())
    assert is_over(of(look(1, judged(), failed)), 0, rules())


def test_a_proof_fails_at_the_first_fault_and_is_timed_at_its_end() -> None:
    strict = rules(prove_frames=10, budget_ms=5)
    assert fault_of_proof(0, 0, (), strict) == ""
    assert fault_of_proof(3, 1, (1.0, 1.0), strict) == (
        "failed on 1 of 3 frames as the running bundle"
    )
    assert fault_of_proof(9, 0, (50.0,) * 9, strict) == ""
    assert fault_of_proof(10, 0, (50.0,) * 10, strict) == (
        "takes 50.0 ms a frame (p95) as the running bundle, update.budget_ms is 5"
    )
    assert fault_of_proof(10, 0, (4.0,) * 10, strict) == ""
