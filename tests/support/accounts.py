"""The sums that a run must close with."""

from __future__ import annotations

from typing import Any


def closes(summary: dict[str, Any]) -> None:
    """Every frame and every line that was captured was inspected or declared in a gap."""
    assert (summary["frames_in_progress"], summary["lines_in_work"]) == (0, 0)
    gaps = {reason: n for reason, n in summary["gaps"].items() if reason != "spool_overflow"}
    assert summary["frames_captured"] == summary["frames_inspected"] + sum(gaps.values())
    missed = sum(summary["gap_lines"].values())
    assert summary["lines_captured"] == summary["lines_inspected"] + missed
