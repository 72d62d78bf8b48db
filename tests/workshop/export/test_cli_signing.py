"""edge-export keygen, sign, verify, as they are typed."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from export.__main__ import main


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert main(["keygen", "--out", str(tmp_path / "line.key")]) == 0
    return tmp_path / "line.key"


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refuse(*words: str | Path) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("edge-export: ")
        return err

    return refuse


Refusal = Callable[..., str]


def test_from_key_to_verified_bundle(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "line.key"
    assert main(["keygen", "--out", str(key), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == {"key_id": made["key_id"], "private": str(key), "public": f"{key}.pub"}
    assert main(["sign", str(bundle), "--key", str(key), "--json"]) == 0
    signed = json.loads(capsys.readouterr().out)
    assert (signed["name"], signed["version"]) == ("tiny", 1)
    assert (
        signed["key_id"]
        == made["key_id"]
        == json.loads((bundle / "bundle.sig").read_bytes())["key_id"]
    )
    assert main(["verify", str(bundle), "--trusted", f"{key}.pub", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == signed
    # And in words, with the other key of two.
    other = tmp_path / "other.key"
    assert main(["keygen", "--out", str(other)]) == 0
    assert main(["verify", str(bundle), "--trusted", f"{other}.pub", f"{key}.pub"]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"tiny version 1, whole, signed with key {made['key_id']}\n")


def test_signing_again_gives_the_same_bytes(bundle: Path, key: Path) -> None:
    assert main(["sign", str(bundle), "--key", str(key)]) == 0
    first = (bundle / "bundle.sig").read_bytes()
    assert main(["sign", str(bundle), "--key", str(key)]) == 0
    assert (bundle / "bundle.sig").read_bytes() == first
    assert [p.name for p in bundle.iterdir() if p.name.startswith(".")] == []


# keygen.


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_private_key_is_its_owners(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert main(["keygen", "--out", str(tmp_path / "line.key")]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "line.key").stat().st_mode) == 0o600
    assert (tmp_path / "line.key").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert (tmp_path / "line.key.pub").read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----\n")


def test_the_private_key_is_nowhere_but_in_its_file(
    tmp_path: Path, bundle: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sign", str(bundle), "--key", str(key)]) == 0
    out, err = capsys.readouterr()
    secret = key.read_text().splitlines()[1]
    assert secret not in out + err
    for path in (bundle / "bundle.sig", tmp_path / "line.key.pub"):
        assert secret not in path.read_text()


@pytest.mark.parametrize("there", ["line.key", "line.key.pub"])
def test_no_key_is_overwritten(tmp_path: Path, refusal: Refusal, there: str) -> None:
    (tmp_path / there).write_text("precious")
    said = refusal("keygen", "--out", tmp_path / "line.key")
    assert f"--out: {tmp_path / there}: is there already" in said
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {there: "precious"}


def test_a_dangling_link_is_not_followed(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "line.key").symlink_to(tmp_path / "elsewhere")
    assert "is there already" in refusal("keygen", "--out", tmp_path / "line.key")
    assert not (tmp_path / "elsewhere").exists()


# sign.


def test_a_broken_bundle_is_not_signed(bundle: Path, key: Path, refusal: Refusal) -> None:
    (bundle / "golden.npz").write_bytes(b"x")
    assert "golden.npz: sha256 is not" in refusal("sign", bundle, "--key", key)
    assert not (bundle / "bundle.sig").exists()


def test_keys_that_cannot_sign(tmp_path: Path, bundle: Path, key: Path, refusal: Refusal) -> None:
    assert "a public key signs nothing" in refusal("sign", bundle, "--key", f"{key}.pub")
    assert "Is a directory" in refusal("sign", bundle, "--key", tmp_path)
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    locked = Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, BestAvailableEncryption(b"p"))
    other = X25519PrivateKey.generate().private_bytes(pem, pkcs8, NoEncryption())
    path = tmp_path / "k"
    for data, said in (
        (locked, "locked with a passphrase"),
        (other, "not an Ed25519 key"),
        (b"", "not an Ed25519 key"),
        (key.read_bytes()[:70], "not an Ed25519 key"),
        (b"\xff" * 9000, "not an Ed25519 key"),
    ):
        path.write_bytes(data)
        assert f"--key: {path}: {said}" in refusal("sign", bundle, "--key", path)
    assert not (bundle / "bundle.sig").exists()


def test_a_bundle_that_cannot_be_written(bundle: Path, key: Path, refusal: Refusal) -> None:
    (bundle / ".bundle.sig.new").mkdir()
    assert "must be writable" in refusal("sign", bundle, "--key", key)


# verify.


def test_what_is_refused(tmp_path: Path, bundle: Path, key: Path, refusal: Refusal) -> None:
    verify = ("verify", bundle, "--trusted", f"{key}.pub")
    assert "bundle.sig: not there" in refusal(*verify)
    assert main(["sign", str(bundle), "--key", str(key)]) == 0
    assert main(["keygen", "--out", str(tmp_path / "other.key")]) == 0
    foreign = ("verify", bundle, "--trusted", tmp_path / "other.key.pub")
    assert "but --trusted has " in refusal(*foreign)
    assert "give its .pub" in refusal("verify", bundle, "--trusted", key)
    (bundle / "golden.npz").write_bytes(b"x")
    assert "golden.npz: sha256 is not" in refusal(*verify)
