"""Signature of a bundle: `bundle.sig`, Ed25519 over the exact bytes of `bundle.json`.

`bundle.json` holds the hashes of all other files, so the whole bundle is signed. It is checked
before the manifest is parsed, and proves the origin only, not that the version is the latest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from edge_agent.errors import BundleError, ConfigError, one_line
from edge_agent.files import encode_json

SIGNATURE = "bundle.sig"
MAX_BYTES = 4096
"""Limit for a signature or key file; usual ones have 100 to 200 bytes."""

_DOMAIN = b"linegate bundle.json 1\0"
"""Prefix of the signed bytes, so that a signature for another purpose is invalid for a bundle."""


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Content of `bundle.sig`; `key_id` only selects the key, the signature decides."""

    schema_version: Literal[1]
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    signature: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{85}[AQgw]==\Z")]
    """Base64 of 64 bytes; its last digit carries two bits, the other four must be zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """Keys whose bundles are accepted; `where` names their list in messages."""

    keys: dict[str, Ed25519PublicKey]
    where: str
    unsigned_allowed: bool = False


def key_id(key: Ed25519PublicKey) -> str:
    """Return the first 16 hex digits of the sha256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the content of `bundle.sig` for these bytes of `bundle.json`; deterministic."""
    signature = Signature(
        schema_version=1,
        key_id=key_id(key.public_key()),
        signature=base64.b64encode(key.sign(_DOMAIN + manifest)).decode(),
    )
    return encode_json(signature)


def parse(raw: bytes, path: Path) -> Signature:
    """Return the parsed `bundle.sig`; `path` is used in the message only. Raises BundleError."""
    try:
        return msgspec.json.decode(raw, type=Signature)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = one_line(error)
        raise BundleError(f"{path}: not a signature ({why}); sign the bundle again") from None


def verify(manifest: bytes, raw: bytes, trust: Trust, path: Path) -> str:
    """Return the id of the trusted key that signed `bundle.json`.

    Args:
        manifest: The bytes of `bundle.json`.
        raw: The bytes of `bundle.sig`.
        trust: The accepted keys.
        path: The name of `bundle.sig`, for the message only.

    Raises:
        BundleError: The key is not trusted, or the signature does not match.
    """
    signature = parse(raw, path)
    key = trust.keys.get(signature.key_id)
    if key is None:
        known = ", ".join(sorted(trust.keys)) or "no key"
        raise BundleError(
            f"{path}: signed with key {signature.key_id}, but {trust.where} has {known}; get the "
            "bundle from its maker again, or trust this key too"
        )
    try:
        key.verify(base64.b64decode(signature.signature), _DOMAIN + manifest)
    except InvalidSignature:
        raise BundleError(
            f"{path}: the signature is not of this bundle.json, one of the two was changed; "
            "get the bundle from its maker again, or sign it again"
        ) from None
    return signature.key_id


def trust(paths: Sequence[str], where: str, *, unsigned_allowed: bool = False) -> Trust:
    """Return the trust in the keys of these .pub files.

    `where` names their list in messages. Raises ConfigError.
    """
    keys = (_public_key(Path(path), where) for path in paths)
    return Trust({key_id(key): key for key in keys}, where, unsigned_allowed)


def _public_key(path: Path, where: str) -> Ed25519PublicKey:
    """Return the Ed25519 key of a .pub file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{where}: {path}: {why}; give a .pub file of a key") from None
    if b"PRIVATE KEY" in data:
        raise ConfigError(f"{where}: {path}: a private key does not belong here; give its .pub")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"{where}: {path}: not an Ed25519 public key; give a .pub that edge-export keygen made"
        )
    return key
