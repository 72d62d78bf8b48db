"""The signature of a bundle: `bundle.sig` beside `bundle.json`, Ed25519 over its exact bytes.

`bundle.json` holds the sha256 of everything else, so this is a signature of the whole bundle. It
is checked before the manifest is parsed. Who made the bundle is all it says: whether the bundle is
whole is for `bundle.load`, whether it is older than the last for `versions`.
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
"""Of a signature or key file; they take a hundred or two."""

_DOMAIN = b"linegate bundle.json 1\0"
"""Comes before the signed bytes, so that a signature for anything else is none for a bundle."""


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`bundle.sig`. `key_id` only says which key to take; the signature decides."""

    schema_version: Literal[1]
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    signature: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{85}[AQgw]==\Z")]
    """Base64 of the 64 bytes, whose last digit carries two bits and nothing else."""


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """Whose bundles are taken. `where` the keys are listed is for the messages."""

    keys: dict[str, Ed25519PublicKey]
    where: str
    unsigned_allowed: bool = False


def key_id(key: Ed25519PublicKey) -> str:
    """First 16 hex digits of the sha256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of `bundle.sig` for these bytes of `bundle.json`: the same in, the same out."""
    signature = Signature(
        schema_version=1,
        key_id=key_id(key.public_key()),
        signature=base64.b64encode(key.sign(_DOMAIN + manifest)).decode(),
    )
    return encode_json(signature)


def parse(raw: bytes, path: Path) -> Signature:
    """`bundle.sig`'s bytes; `path` is for the message only. Raises BundleError."""
    try:
        return msgspec.json.decode(raw, type=Signature)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = one_line(error)
        raise BundleError(f"{path}: not a signature ({why}); sign the bundle again") from None


def verify(manifest: bytes, raw: bytes, trust: Trust, path: Path) -> str:
    """The id of the trusted key that signed these bytes of `bundle.json`. Raises BundleError.

    `raw` are the bytes of `bundle.sig`; `path`, its name, is for the message only.
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
    """Trust in the keys of these .pub files. Raises ConfigError; `where` names their list."""
    keys = (_public_key(Path(path), where) for path in paths)
    return Trust({key_id(key): key for key in keys}, where, unsigned_allowed)


def _public_key(path: Path, where: str) -> Ed25519PublicKey:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
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
