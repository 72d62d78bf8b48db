"""The glossary is a table in alphabetical order, one sentence a word."""

from __future__ import annotations

from pathlib import Path

GLOSSARY = Path(__file__).resolve().parents[3] / "docs" / "glossary.md"


def _rows() -> list[list[str]]:
    lines = GLOSSARY.read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_each_row_has_a_word_a_sentence_and_its_standard() -> None:
    for row in _rows():
        assert len(row) == 3, row
        assert row[1].endswith("."), row


def test_words_are_in_alphabetical_order_and_appear_once() -> None:
    words = [row[0].lower() for row in _rows()]
    assert words == sorted(set(words))
