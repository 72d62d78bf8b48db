"""Key files: the private key that signs bundles stays with its owner, KEY.pub goes to the lines."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edge_agent.bundle.signature import MAX_BYTES, key_id
from workshop.errors import WorkshopError


def public_path(path: Path) -> Path:
    """Return the path of the public key: KEY.pub beside KEY."""
    return path.with_name(f"{path.name}.pub")


def generate(path: Path) -> str:
    """Write a new key to `path` (PEM, PKCS8, readable only by its owner) and its public half.

    Returns the key's id. Raises WorkshopError if one of the files exists already or cannot be
    written.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _create(path, private, 0o600)
    try:
        _create(public_path(path), public, 0o644)
    except WorkshopError:
        path.unlink()  # safe to delete: this call created it
        raise
    return key_id(key.public_key())


def read_private(path: Path) -> Ed25519PrivateKey:
    """Read the private key; raise WorkshopError, without any content of the file, if unusable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError as error:
        raise WorkshopError(
            f"--key: {path}: {error.strerror}; give a key that edge-export keygen made"
        ) from None
    if b"PUBLIC KEY" in data:
        raise WorkshopError(f"--key: {path}: a public key signs nothing; give the one without .pub")
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:  # raised for a missing password
        raise WorkshopError(
            f"--key: {path}: locked with a passphrase; give a key without one"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise WorkshopError(
            f"--key: {path}: not an Ed25519 key; give one that edge-export keygen made"
        )
    return key


def _create(path: Path, data: bytes, mode: int) -> None:
    """Create a file, never more accessible than `mode`; raise WorkshopError if it exists.

    An existing key is not overwritten: delivered bundles are signed with it.
    """
    try:
        # O_EXCL does not follow a symbolic link either.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise WorkshopError(f"--out: {path}: is there already; give another name") from None
    except OSError as error:
        raise WorkshopError(f"--out: {path}: {error.strerror}; give a path to write") from None
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(data)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise WorkshopError(f"--out: {path}: {error.strerror}; give a path to write") from None
