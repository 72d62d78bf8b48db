"""The pages of figures are made of the runs, all of them, and are current."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import pages

RUNS = sorted(pages.RESULTS.glob("*.json"))


@pytest.mark.parametrize("page", pages.pages().items(), ids=lambda item: item[0].name)
def test_a_page_is_current(page: tuple[Path, str]) -> None:
    path, text = page
    assert path.read_text(encoding="utf-8") == text, "not current; run make figures"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_a_run_is_on_a_page(run: Path) -> None:
    templates = [
        path.read_text(encoding="utf-8") for path in (pages.RESULTS / "pages").glob("*.md")
    ]
    assert any(f"\n{{{{ {run.stem} }}}}\n" in template for template in templates)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_a_run_has_its_kind_and_can_be_shown(run: Path) -> None:
    content = json.loads(run.read_text(encoding="utf-8"))
    assert pages.rendered(content)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_a_run_that_is_no_table_names_its_command(run: Path) -> None:
    content = json.loads(run.read_text(encoding="utf-8"))
    assert content["kind"] == "table" or content["command"]


def test_a_table_shows_intervals_and_counts() -> None:
    rows = [["all off", {"value": 0.5, "low": 0.4, "high": 0.6}, {"count": 3, "of": 4}]]
    run = {"kind": "table", "columns": ["option", "Dice", "right"], "rows": rows}
    assert pages.rendered(run) == (
        "| option | Dice | right |\n|---|---|---|\n| all off | 0.500 [0.400, 0.600] | 3 of 4 |"
    )
