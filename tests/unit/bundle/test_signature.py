"""The signature alone: whose key, over which bytes, and every refusal in one line."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from edge_agent.bundle.signature import Trust, key_id, sign, trust, verify
from edge_agent.errors import BundleError, ConfigError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1")
MANIFEST = b'{"name": "steel"}\n'
SIG = Path("b/bundle.sig")
TRUST = Trust({key_id(KEY.public_key()): KEY.public_key()}, "agent.trusted_keys")


def _refusal(manifest: bytes, raw: bytes, trusted: Trust = TRUST) -> str:
    with pytest.raises(BundleError) as caught:
        verify(manifest, raw, trusted, SIG)
    message = str(caught.value)
    assert message.startswith("b/bundle.sig: ")
    assert len(message.splitlines()) == 1
    return message


def test_the_key_that_signed_is_named() -> None:
    raw = KEY.public_key().public_bytes_raw()
    want = hashlib.sha256(raw).hexdigest()[:16]
    assert verify(MANIFEST, sign(MANIFEST, KEY), TRUST, SIG) == want == key_id(KEY.public_key())


def test_the_file_is_small_json_and_the_same_each_time() -> None:
    raw = sign(MANIFEST, KEY)
    tree = json.loads(raw)
    assert set(tree) == {"schema_version", "key_id", "signature"}
    assert len(base64.b64decode(tree["signature"])) == 64
    assert raw == sign(MANIFEST, KEY)


def test_every_byte_of_the_manifest_is_signed() -> None:
    raw = sign(MANIFEST, KEY)
    for changed in (MANIFEST[:-1], MANIFEST + b" ", MANIFEST.replace(b"steel", b"steal"), b""):
        assert "the signature is not of this bundle.json" in _refusal(changed, raw)


def test_a_signature_made_for_something_else_is_none_for_a_bundle() -> None:
    tree = json.loads(sign(MANIFEST, KEY))
    tree["signature"] = base64.b64encode(KEY.sign(MANIFEST)).decode()
    assert "not of this bundle.json" in _refusal(MANIFEST, json.dumps(tree).encode())


def test_a_foreign_key_is_named_with_those_that_are_trusted() -> None:
    said = _refusal(MANIFEST, sign(MANIFEST, OTHER))
    assert f"signed with key {key_id(OTHER.public_key())}" in said
    assert f"agent.trusted_keys has {key_id(KEY.public_key())}" in said
    said = _refusal(MANIFEST, sign(MANIFEST, OTHER), Trust({}, "agent.trusted_keys"))
    assert "agent.trusted_keys has no key" in said


def test_a_foreign_key_under_a_trusted_name_signs_nothing() -> None:
    tree = json.loads(sign(MANIFEST, OTHER)) | {"key_id": key_id(KEY.public_key())}
    assert "not of this bundle.json" in _refusal(MANIFEST, json.dumps(tree).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"key_id": "0" * 15},
        {"key_id": "../../etc/passwd"},
        {"key_id": None},
        {"signature": ""},
        {"signature": "A" * 88},
        {"signature": "A" * 86 + "==\n"},
        {"signature": "A" * 85 + "B=="},  # decodes to the same as A: one signature, one text
        {"signature": 5},
        {"extra\nkey": 1},
    ],
)
def test_what_is_no_signature_file(change: dict[str, object]) -> None:
    tree = json.loads(sign(MANIFEST, KEY)) | change
    said = _refusal(MANIFEST, json.dumps(tree).encode())
    assert "not a signature (" in said
    assert "sign the bundle again" in said


# Keys.


def _public(path: Path, key: Ed25519PrivateKey) -> Path:
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_any_of_several_keys_may_have_signed(tmp_path: Path) -> None:
    paths = [str(_public(tmp_path / f"{i}.pub", key)) for i, key in enumerate((OTHER, KEY))]
    trusted = trust(paths, "agent.trusted_keys")
    for key in (KEY, OTHER):
        assert verify(MANIFEST, sign(MANIFEST, key), trusted, SIG) == key_id(key.public_key())


def _key_refusal(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        trust([path], "agent.trusted_keys")
    message = str(caught.value)
    assert message.startswith("agent.trusted_keys: ")
    assert len(message.splitlines()) == 1
    return message


def test_key_files_that_are_none(tmp_path: Path) -> None:
    assert "No such file" in _key_refusal(str(tmp_path / "none.pub"))
    assert "Is a directory" in _key_refusal(str(tmp_path))
    assert "embedded null byte" in _key_refusal("a\0b")
    path = tmp_path / "x.pub"
    whole = _public(path, KEY).read_bytes()
    for data in (b"", b"hello", whole[:60], whole.replace(b"MC", b"MD"), b"\xff" * 5000):
        path.write_bytes(data)
        assert "not an Ed25519 public key" in _key_refusal(str(path))
    x25519 = X25519PrivateKey.generate().public_key()
    path.write_bytes(x25519.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert "not an Ed25519 public key" in _key_refusal(str(path))


def test_a_private_key_is_not_trusted_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "line.key"
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    said = _key_refusal(str(path))
    assert "give its .pub" in said
    assert pem.splitlines()[1].decode() not in said
