"""Errors of others fit into our one-line messages."""

import pytest

from edge_agent.errors import first_line, one_line


@pytest.mark.parametrize(
    ("text", "first", "whole"),
    [
        ("short", "short", "short"),
        ("\n  cause \r\n at line 5\n", "cause", "cause at line 5"),
        ("", "ValueError", "ValueError"),
        (" \n ", "ValueError", "ValueError"),
    ],
)
def test_an_error_is_one_line_and_never_empty(text: str, first: str, whole: str) -> None:
    assert (first_line(ValueError(text)), one_line(ValueError(text))) == (first, whole)
