"""A bundle as one file: what the agent takes, and what may have been done to it on the way."""

from __future__ import annotations

import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.__main__ import main
from edge_agent.agent import prepare_stages
from edge_agent.bundle import archive as parcel
from edge_agent.bundle import manifest as bundles
from edge_agent.bundle import reader, signature
from edge_agent.config import config as configs
from edge_agent.errors import BundleError
from export import signing_keys
from export.__main__ import main as export

Sign = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, tiny_bundle: Path, sign_bundle: Sign) -> Path:
    """A signed bundle with a file for people beside it."""
    folder = sign_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (folder / "report.html").write_text("for people")
    return folder


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    assert export(["pack", str(folder), "--out", str(tmp_path / "tiny.linegate")]) == 0
    return tmp_path / "tiny.linegate"


@pytest.fixture
def trust(key_pair: Path) -> signature.Trust:
    return signature.trust([f"{key_pair}.pub"], "agent.trusted_keys")


def _load(path: Path, trust: signature.Trust | None = None) -> bundles.Bundle:
    with parcel.opened(path, trust) as folder:
        return reader.load(folder, trust)


def _refusal(path: Path, trust: signature.Trust | None = None) -> str:
    with pytest.raises(BundleError) as caught:
        _load(path, trust)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    assert "/linegate-" not in message
    return message


def _zip(path: Path, files: list[tuple[zipfile.ZipInfo | str, bytes]], how: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def _contents(packed: Path) -> list[tuple[zipfile.ZipInfo | str, bytes]]:
    with zipfile.ZipFile(packed) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def test_it_holds_the_bundle_and_nothing_else(folder: Path, packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        assert names[:3] == ["bundle.json", "bundle.sig", "golden.npz"]
        assert {*names} == {p.name for p in folder.iterdir()} - {"report.html"}
        assert all(archive.read(n) == (folder / n).read_bytes() for n in names)
    assert _load(packed).sha256 == reader.load(folder).sha256


def test_the_agent_takes_it_and_leaves_nothing_behind(
    packed: Path,
    key_pair: Path,
    tmp_path: Path,
    config_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    agent = {"bundle": str(packed), "trusted_keys": [f"{key_pair}.pub"]}
    config = config_file("mqtt://127.0.0.1:1", agent=agent | {"unsigned_bundles": "refuse"})
    stages = prepare_stages(configs.load(config))
    assert stages.bundle.signed_by
    assert list((tmp_path / "tmp").iterdir()) == []
    # What is loaded still runs.
    import numpy as np

    spec = stages.bundle.manifest.gate.input
    x = np.zeros((1, spec.height, spec.width, spec.channels), np.float32)
    assert stages.gate.runtime.run(x).size == 1
    assert main(["check", "--config", str(config)]) == 0


def test_the_commands_take_it(
    packed: Path, key_pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(["verify", str(packed), "--trusted", f"{key_pair}.pub"]) == 0
    assert capsys.readouterr().out.startswith(f"{packed}: tiny version 1, whole, signed with key ")
    assert main(["bundle", "verify", str(packed), "--runs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fit"] is True


def test_a_broken_bundle_is_not_packed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "golden.npz").write_bytes(b"x")
    assert export(["pack", str(folder), "--out", str(tmp_path / "x")]) == 2
    assert "golden.npz: sha256 is not" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_where_it_cannot_be_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(["pack", str(folder), "--out", str(tmp_path / "none" / "x")]) == 2
    assert "give a file that can be written" in capsys.readouterr().err


def test_a_foreign_key_and_no_signature(
    packed: Path, folder: Path, tmp_path: Path, trust: signature.Trust
) -> None:
    signing_keys.generate(tmp_path / "foreign.key")
    foreign = signature.trust([str(tmp_path / "foreign.key.pub")], "agent.trusted_keys")
    assert "but agent.trusted_keys has " in _refusal(packed, foreign)
    unsigned = _zip(tmp_path / "u", [c for c in _contents(packed) if c[0] != "bundle.sig"])
    assert "bundle.sig: not there, the bundle is not signed" in _refusal(unsigned, trust)


def test_nothing_is_unpacked_before_the_signature_holds(
    packed: Path, tmp_path: Path, trust: signature.Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = parcel._write

    def noted(archive: Any, entry: zipfile.ZipInfo, *rest: Any) -> None:
        written.append(entry.filename)
        write(archive, entry, *rest)

    monkeypatch.setattr(parcel, "_write", noted)
    changed = [
        (n, d.replace(b"-1.5", b"99.5") if n == "bundle.json" else d) for n, d in _contents(packed)
    ]
    assert "not of this bundle.json" in _refusal(_zip(tmp_path / "x", changed), trust)
    assert written == ["bundle.json", "bundle.sig"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", "C:\\x", "gate\0.onnx", ".x"])
def test_a_path_in_the_archive(packed: Path, tmp_path: Path, name: str) -> None:
    # zipfile's own writer would smooth it: the bytes of a fitting name are replaced.
    filler = "q" * len(name)
    raw = _zip(tmp_path / "x", [*_contents(packed), (filler, b"data")]).read_bytes()
    (tmp_path / "x").write_bytes(raw.replace(filler.encode(), name.encode()))
    assert "is no plain name" in _refusal(tmp_path / "x")
    assert {p.name for p in tmp_path.iterdir()} == {"bundle", "tiny.linegate", "x"}


def _link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    return entry


def _cases(packed: Path) -> dict[str, list[tuple[zipfile.ZipInfo | str, bytes]]]:
    good = _contents(packed)
    golden = dict(good)["golden.npz"]
    without = [c for c in good if c[0] != "golden.npz"]
    return {
        "golden.npz is not in it": without,
        "report.html is not in its bundle.json": [*good, ("report.html", b"x")],
        f"golden.npz has {len(golden) + 1} bytes, {len(golden)} expected": [
            *without,
            ("golden.npz", golden + b"\0"),
        ],
        "golden.npz: sha256 is not the one": [
            *without,
            (_link("golden.npz"), b"/etc/passwd".ljust(len(golden), b"\0")),
        ],
        "bundle.json has 2000000 bytes": [("bundle.json", b" " * 2_000_000), *good[1:]],
        "No such file": good[1:],
    }


@pytest.mark.parametrize("number", range(6))
def test_other_contents(packed: Path, tmp_path: Path, number: int) -> None:
    said, files = list(_cases(packed).items())[number]
    assert said in _refusal(_zip(tmp_path / "x", files))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(packed: Path, tmp_path: Path) -> None:
    files = [*_contents(packed), ("golden.npz", b"other")]
    assert "golden.npz is there twice" in _refusal(_zip(tmp_path / "x", files))


def test_a_bomb(packed: Path, tmp_path: Path) -> None:
    path = _zip(tmp_path / "x", _contents(packed), zipfile.ZIP_DEFLATED)
    assert "is not stored as it is" in _refusal(path)


def test_a_declared_size_of_10_gb_and_one_of_3(packed: Path, tmp_path: Path) -> None:
    """Sizes beyond 4 GB need zip64, which a parcel has not."""
    raw = bytearray(packed.read_bytes())
    at = raw.rindex(b"PK\x01\x02")  # the last entry of the list
    struct.pack_into("<LL", raw, at + 20, 3 << 30, 3 << 30)
    (tmp_path / "x").write_bytes(raw)
    assert "has 3221225472 bytes" in _refusal(tmp_path / "x")
    with (
        zipfile.ZipFile(tmp_path / "x", "w") as archive,
        archive.open("big", "w", force_zip64=True),
    ):
        pass
    raw = bytearray((tmp_path / "x").read_bytes())
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 10 * 10**9, 1)
    (tmp_path / "x").write_bytes(raw[:-22] + locator + raw[-22:])
    assert "does not end as a bundle does" in _refusal(tmp_path / "x")


def test_a_list_of_files_without_end(packed: Path, tmp_path: Path) -> None:
    files = [*_contents(packed), *((f"file-{i:05d}", b"") for i in range(2000))]
    assert "its list of files is too long" in _refusal(_zip(tmp_path / "x", files))


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_cut_short(packed: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(packed.read_bytes()[:size])
    assert "not a whole packed bundle" in _refusal(tmp_path / "x")


def test_flipped_bits(packed: Path, tmp_path: Path, trust: signature.Trust) -> None:
    """Each is noticed, or is one of those that say nothing: times, modes, what a zip says twice."""
    good, want = packed.read_bytes(), _load(packed, trust)
    rng = random.Random(3)
    listed = len(good) - 22 - sum(46 + len(str(n)) for n, _ in _contents(packed))
    refused = 0
    for at in [*(rng.randrange(len(good)) for _ in range(150)), *range(listed, len(good), 3)]:
        data = bytearray(good)
        data[at] ^= 1 << rng.randrange(8)
        (tmp_path / "x").write_bytes(data)
        try:
            assert _load(tmp_path / "x", trust).sha256 == want.sha256
        except BundleError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
    assert refused > 150
