"""The store and the record on a real disk: whole or not there, and nothing outside them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.bundle import version_history
from edge_agent.bundle.reader import load
from edge_agent.bundle.signature import Trust
from edge_agent.config.config import Config, parse
from edge_agent.errors import BundleError
from edge_agent.update import record as update
from edge_agent.update.bundle_store import BundleStore, slot_of
from edge_agent.update.record import UpdateError, UpdateRecord
from edge_agent.update.staging import stage

ANY = Trust({}, "nowhere", unsigned_allowed=True)
NOW = "2026-11-25T00:00:00.000000Z"


@pytest.fixture
def config(tmp_path: Path, tiny_bundle: Path) -> Config:
    agent = {
        "bundle": str(tiny_bundle),
        "state_dir": str(tmp_path / "state"),
        "unsigned_bundles": "allow",
        "threads": 1,
    }
    tree = {"agent": agent, "camera": {"kind": "simulated"}, "mqtt": {"broker": "embedded"}}
    return parse(tree, "test")


@pytest.fixture(scope="module")
def newer(
    tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path]
) -> Callable[[int], Path]:
    """`newer(version)`: a bundle of that version; read only."""
    made: dict[int, Path] = {}

    def make(version: int) -> Path:
        if version not in made:
            folder = tmp_path_factory.mktemp("newer") / str(version)
            made[version] = write_bundle(folder, version=version)
        return made[version]

    return make


def stored(config: Config) -> set[str]:
    return {path.name for path in (config.state_dir / "update" / "store").iterdir()}


def test_a_staged_bundle_is_a_whole_copy_and_nothing_else(
    tmp_path: Path, config: Config, newer: Callable[[int], Path]
) -> None:
    source = shutil.copytree(newer(2), tmp_path / "source")
    (source / "more.txt").write_text("not of the bundle", encoding="utf-8")
    slots = BundleStore(config.state_dir)
    record = stage(config, slots, source)
    assert record == slots.read()
    assert record.phase == "staged"
    assert record.candidate is not None
    shutil.rmtree(source)
    copy = load(slots.folder(record.candidate))
    assert slot_of(copy) == record.candidate
    assert not (copy.folder / "more.txt").exists()
    assert sorted(p.name for p in (config.state_dir / "update").iterdir()) == [
        "lock",
        "record.json",
        "staging.lock",
        "store",
    ]


def test_what_the_record_no_longer_names_is_removed(
    config: Config, newer: Callable[[int], Path]
) -> None:
    slots = BundleStore(config.state_dir)
    seen = []
    for version in (2, 3, 4):
        slot = stage(config, slots, newer(version)).candidate
        assert slot is not None
        slots.change(lambda r, s=slot: update.begun(r, s, 3, NOW))
        running = slots.read().active
        if running is None:
            old = load(Path(config.agent.bundle))
            slots.stage(old.folder, ANY, lambda r, b, s=slot: update.switched(r, s, slot_of(b), ""))
        else:
            slots.change(lambda r, s=slot, o=running: update.switched(r, s, o, ""))
        slots.change(lambda r, s=slot: update.confirmed(r, s, NOW))
        seen.append(slot.sha256)
    assert stored(config) == set(seen[-2:])
    slots.change(lambda r: update.returned(r, NOW))
    assert stored(config) == set(seen[-2:])


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions_only_rise_unless_forced(
    config: Config, newer: Callable[[int], Path], write_bundle: Callable[..., Path], version: int
) -> None:
    config.state_dir.mkdir()
    version_history.remember(config.state_dir, load(newer(3)))
    other = write_bundle(config.state_dir / "other", version=version, scale=43.0)
    slots = BundleStore(config.state_dir)
    with pytest.raises(UpdateError, match=f"version {version} does not rise above 3"):
        stage(config, slots, other)
    assert slots.read() == UpdateRecord()
    assert stored(config) == set()
    record = stage(config, slots, other, force=True)
    assert record.candidate is not None
    assert record.candidate.forced


def test_what_runs_is_not_staged(config: Config) -> None:
    with pytest.raises(UpdateError, match="is what runs"):
        stage(config, BundleStore(config.state_dir), Path(config.agent.bundle))


@pytest.mark.parametrize("name", ["bundle.json", "gate-float32.onnx", "golden.npz"])
def test_a_flipped_bit_leaves_all_as_it_was(
    tmp_path: Path, config: Config, newer: Callable[[int], Path], name: str
) -> None:
    source = shutil.copytree(newer(2), tmp_path / "source")
    data = bytearray((source / name).read_bytes())
    data[len(data) // 2] ^= 1
    (source / name).write_bytes(data)
    slots = BundleStore(config.state_dir)
    with pytest.raises(BundleError):
        stage(config, slots, source)
    assert slots.read() == UpdateRecord()
    assert stored(config) == set()


def test_a_bundle_that_is_too_large_is_refused_before_it_is_copied(
    config: Config, newer: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = BundleStore(config.state_dir)
    monkeypatch.setattr("edge_agent.update.bundle_store.MAX_BUNDLE_BYTES", 1000)
    with pytest.raises(UpdateError, match="bytes, more than 1000; export fewer artifacts"):
        slots.stage(newer(2), ANY, lambda r, b: update.staged(r, slot_of(b)))
    assert stored(config) == set()


def test_a_link_is_not_followed(
    tmp_path: Path, config: Config, newer: Callable[[int], Path]
) -> None:
    source = shutil.copytree(newer(2), tmp_path / "source")
    (source / "golden.npz").rename(tmp_path / "elsewhere")
    (source / "golden.npz").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="a link"):
        stage(config, BundleStore(config.state_dir), source)


def test_a_damaged_copy_in_the_store_is_replaced(
    config: Config, newer: Callable[[int], Path]
) -> None:
    slots = BundleStore(config.state_dir)
    slot = stage(config, slots, newer(2)).candidate
    assert slot is not None
    (slots.folder(slot) / "golden.npz").write_bytes(b"damaged")
    assert stage(config, slots, newer(2)).candidate == slot
    load(slots.folder(slot))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"phase": "proving"}', b"\xff" * 70000])
def test_a_damaged_record_is_set_aside_and_what_ran_is_found(
    config: Config, newer: Callable[[int], Path], raw: bytes
) -> None:
    slots = BundleStore(config.state_dir)
    slot = stage(config, slots, newer(2)).candidate
    assert slot is not None
    path = config.state_dir / "update" / "record.json"
    path.write_bytes(raw)
    assert slots.damaged
    assert slots.read() == UpdateRecord(), "what was never tried is not run"
    version_history.remember(config.state_dir, load(slots.folder(slot)))
    assert slots.read() == UpdateRecord(active=slot)
    slots.change(lambda record: record)
    assert not slots.damaged
    assert json.loads(path.read_bytes())["active"]["version"] == 2
    (aside,) = path.parent.glob("record.json.damaged-*")
    assert aside.read_bytes() == raw


def test_a_disk_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, config: Config, newer: Callable[[int], Path]
) -> None:
    config.state_dir.mkdir()
    (config.state_dir / "update").write_text("in the way", encoding="utf-8")
    with pytest.raises(UpdateError, match="free the disk, or run as the agent's user"):
        stage(config, BundleStore(config.state_dir), newer(2))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_stages_belongs_to_the_agents_user(
    config: Config, newer: Callable[[int], Path]
) -> None:
    config.state_dir.mkdir()
    os.chown(config.state_dir, 12345, 12345)
    stage(config, BundleStore(config.state_dir), newer(2))
    made = [p for p in config.state_dir.rglob("*")]
    assert len(made) > 8
    assert {(p.stat().st_uid, p.stat().st_gid) for p in made} == {(12345, 12345)}
