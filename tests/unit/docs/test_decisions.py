"""The index of the decisions is complete and true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DECISIONS = Path(__file__).resolve().parents[3] / "docs" / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
ROW = re.compile(r"^\| \[(\d+)\]\(([^)]+)\) \| (.+) \| ([\d-]+) \| (.+) \|$", re.MULTILINE)
HEAD = re.compile(r"# (\d+)\. (.+)\n\nDate: ([\d-]+)\. Status: (\w+)")


def test_the_index_names_every_record_once_and_in_order() -> None:
    rows = ROW.findall((DECISIONS / "README.md").read_text(encoding="utf-8"))
    assert [row[1] for row in rows] == [record.name for record in RECORDS]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name[:4])
def test_a_row_repeats_the_head_of_its_record(record: Path) -> None:
    head = HEAD.match(record.read_text(encoding="utf-8"))
    assert head, f"{record.name}: no head; see template.md"
    rows = ROW.findall((DECISIONS / "README.md").read_text(encoding="utf-8"))
    number, _, title, date, status = next(row for row in rows if row[1] == record.name)
    assert (number, title, date) == (head[1], head[2], head[3])
    assert status.split()[0] == head[4]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name[:4])
def test_numbers_follow_each_other(record: Path) -> None:
    assert int(record.name[:4]) == RECORDS.index(record) + 1
