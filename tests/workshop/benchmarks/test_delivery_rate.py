"""edge-bench delivery on a few events: what it measures really happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main


@pytest.mark.system
def test_all_of_both_runs_arrive_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    words = ["delivery", "--events", "600", "--backlog", "2500", "--folder", str(tmp_path)]
    assert main([*words, "--json", str(report)]) == 0
    runs = json.loads(report.read_bytes())["runs"]
    assert {name: run["events"] for name, run in runs.items()} == {"live": 600, "backlog": 2500}
    for run in runs.values():
        assert run["in_order"] is True
        assert run["events_per_s"] == pytest.approx(run["events"] / run["seconds"], rel=0.05)
        assert run["peak_memory_mb"] >= run["idle_memory_mb"] > 10
    assert "live             600" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"], "it clears up"
