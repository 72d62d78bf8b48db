"""What ran here is remembered, an older bundle is refused, and the disk never stops the line."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.bundle.manifest import Bundle
from edge_agent.bundle.reader import load
from edge_agent.bundle.version_history import FILE, check, remember
from edge_agent.errors import BundleError


@pytest.fixture(scope="module")
def loaded(tiny_bundle: Path) -> Bundle:
    return load(tiny_bundle)


def _as(bundle: Bundle, version: int, *, name: str = "tiny", sha256: str = "a" * 64) -> Bundle:
    manifest = msgspec.structs.replace(bundle.manifest, name=name, version=version)
    return Bundle(bundle.folder, manifest, bundle.golden, sha256)


def test_the_highest_version_is_kept_by_name(tmp_path: Path, loaded: Bundle) -> None:
    for version in (1, 5, 3):
        remember(tmp_path, _as(loaded, version, sha256=str(version) * 64))
    remember(tmp_path, _as(loaded, 2, name="other"))
    assert json.loads((tmp_path / FILE).read_bytes()) == {
        "schema_version": 1,
        "highest": {
            "tiny": {"version": 5, "sha256": "5" * 64},
            "other": {"version": 2, "sha256": "a" * 64},
        },
    }
    assert [path.name for path in tmp_path.iterdir()] == [FILE], "no temporary file is left"


def test_an_older_version_is_refused_or_allowed_by_hand(
    tmp_path: Path, loaded: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    remember(tmp_path, _as(loaded, 5))
    with pytest.raises(BundleError) as caught:
        check(tmp_path, _as(loaded, 3), allow_older=False)
    said = str(caught.value)
    assert "tiny version 3 is older than 5, which ran here" in said
    assert "--allow-older" in said
    assert len(said.splitlines()) == 1
    check(tmp_path, _as(loaded, 3), allow_older=True)
    assert "tiny version 3 is older than 5" in caplog.text
    check(tmp_path, _as(loaded, 1, name="other"), allow_older=False)


def test_the_same_version_runs_again_and_another_content_is_said(
    tmp_path: Path, loaded: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    remember(tmp_path, _as(loaded, 5))
    check(tmp_path, _as(loaded, 5), allow_older=False)
    assert caplog.text == ""
    check(tmp_path, _as(loaded, 5, sha256="b" * 64), allow_older=False)
    assert "version 5 ran here with another content" in caplog.text


DAMAGED = [
    b"",
    b"{",
    b"null",
    b'{"schema_version": 2, "highest": {}}',
    b'{"schema_version": 1, "highest": {"tiny": {"version": 1e99, "sha256": ""}}}',
    b"[" * 100_000,
    b" " * (2 << 20),
]


@pytest.mark.parametrize("data", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_set_aside_and_reported(
    tmp_path: Path, loaded: Bundle, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    (tmp_path / FILE).write_bytes(data)
    check(tmp_path, _as(loaded, 3), allow_older=False)
    assert f"{tmp_path / FILE}: damaged (" in caplog.text
    assert (tmp_path / FILE).read_bytes() == data, "check writes nothing"
    remember(tmp_path, _as(loaded, 3))
    assert "set aside as bundle-versions.json.damaged-" in caplog.text
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes() == data
    with pytest.raises(BundleError, match="older than 3"):
        check(tmp_path, _as(loaded, 2), allow_older=False)


def test_a_folder_in_its_place_is_set_aside(tmp_path: Path, loaded: Bundle) -> None:
    (tmp_path / FILE).mkdir()
    check(tmp_path, _as(loaded, 3), allow_older=False)
    remember(tmp_path, _as(loaded, 3))
    assert (tmp_path / FILE).is_file()


def test_a_disk_that_cannot_be_written_stops_nothing(
    tmp_path: Path, loaded: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("no folder")
    check(nowhere, _as(loaded, 3), allow_older=False)
    remember(nowhere, _as(loaded, 3))
    assert "is not remembered" in caplog.text
    assert {r.levelno for r in caplog.records} == {logging.ERROR}


@given(data=st.binary(max_size=80), at=st.integers(0, 150), cut=st.integers(0, 20))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_the_file_holds(
    tmp_path: Path, loaded: Bundle, data: bytes, at: int, cut: int
) -> None:
    good = json.dumps(
        {"schema_version": 1, "highest": {"tiny": {"version": 5, "sha256": "a" * 64}}}
    ).encode()
    (tmp_path / FILE).write_bytes(good[:at] + data + good[at + cut :])
    try:
        check(tmp_path, _as(loaded, 3), allow_older=False)
    except BundleError as error:
        assert "is older than" in str(error)
    remember(tmp_path, _as(loaded, 2**31 - 1))
