"""A file that is replaced has the old content or the new, and nothing is left beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent import files


def test_a_replaced_file_has_the_new_content_and_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd)),
    )
    path = tmp_path / "state.json"
    for text in ("first", "second"):
        synced.clear()
        with files.replacing(path) as new:
            new.write_text(text)
        assert path.read_text() == text
        # The content before the name points to it, then the name.
        assert synced == [str(tmp_path / ".state.json.new"), str(tmp_path)]
    synced.clear()
    with files.replacing(path, durable=False) as new:
        new.write_text("third")
    assert (path.read_text(), synced) == ("third", [])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["half", None])
def test_an_error_leaves_the_old_content(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    with pytest.raises(OSError, match=r"disk full|state\.json"), files.replacing(path) as new:
        if text is not None:
            new.write_text(text)
            raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
