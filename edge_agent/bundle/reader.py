"""Reader of a bundle folder; each file is verified before its content is used.

Order of the checks: signature over the manifest's bytes, manifest format, then for each file a
plain name and a plain file inside the folder, its size and its sha256.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import msgspec

from edge_agent.bundle.golden import parse_golden
from edge_agent.bundle.manifest import (
    _MAX_FILE_BYTES,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Bundle,
    BundleFile,
    Manifest,
)
from edge_agent.bundle.signature import MAX_BYTES, SIGNATURE, Trust, verify
from edge_agent.errors import BundleError, one_line
from edge_agent.files import encode_json


def load(folder: Path, trust: Trust | None = None) -> Bundle:
    """Return the verified bundle; raise BundleError with the file and the fix.

    Without `trust`, as in the workshop where bundles are made, the signature is not checked.
    """
    raw, manifest, signed_by = read_manifest(folder, trust)
    for stage in (manifest.gate, manifest.segmenter):
        for artifact in stage.artifacts:
            _verified(folder, artifact.file)
    return Bundle(
        folder=folder,
        manifest=manifest,
        golden=parse_golden(_verified(folder, manifest.golden), folder / manifest.golden.name),
        sha256=hashlib.sha256(raw).hexdigest(),
        signed_by=signed_by,
    )


def read_manifest(folder: Path, trust: Trust | None = None) -> tuple[bytes, Manifest, str]:
    """Return the bytes of `bundle.json`, the parsed manifest and the id of the key that signed it.

    The signature is verified before the bytes are parsed. Raises BundleError.
    """
    raw = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
    signed_by = _signed_by(folder, raw, trust) if trust else ""
    return raw, parse_manifest(raw, folder / MANIFEST), signed_by


def _signed_by(folder: Path, manifest: bytes, trust: Trust) -> str:
    """Return the key's id; "" for an unsigned bundle if that is permitted. Raises BundleError.

    If there are trusted keys, a signature that is present must be valid in either case.
    """
    path = folder / SIGNATURE
    if trust.unsigned_allowed and not (trust.keys and os.path.lexists(path)):
        return ""
    if not os.path.lexists(path):
        raise BundleError(
            f"{path}: not there, the bundle is not signed; run edge-export sign {folder} --key "
            'KEY, or let unsigned ones run: agent.unsigned_bundles = "allow"'
        )
    return verify(manifest, _read(path, MAX_BYTES), trust, path)


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """Return the parsed `bundle.json`; `path` is used in the message only.

    Raises BundleError, also for a gate artifact without a threshold.
    """
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # A key may contain a line break, which msgspec copies into its message.
        why = one_line(error)
        if why.endswith((".file.name`", ".golden.name`")):
            why += ": a file has a plain name and lies in the bundle's own folder"
        raise BundleError(f"{path}: {why}; export the bundle again") from None
    for artifact in manifest.gate.artifacts:
        if artifact.threshold_logit is None:
            raise BundleError(
                f"{path}: gate artifact {artifact.file.name} has no threshold_logit; "
                "run edge-calibrate gate"
            )
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of `bundle.json`; the same manifest gives the same bytes."""
    return encode_json(manifest)


def describe(name: str, data: bytes) -> BundleFile:
    """Return the manifest's entry for a file with this content."""
    return BundleFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def _read(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a plain file within the limit. Raises BundleError.

    A link is refused: its target could change without a change in the bundle.
    """
    try:
        with open(path, "rb", opener=no_link) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BundleError(f"{path}: not a plain file; copy the bundle again")
            if found.st_size > limit_bytes:
                raise BundleError(
                    f"{path}: {found.st_size} bytes, more than the limit of {limit_bytes}"
                )
            return file.read(limit_bytes)
    except (OSError, ValueError) as error:  # ValueError: NUL in the folder's name
        if getattr(error, "errno", None) == errno.ELOOP:
            raise BundleError(
                f"{path}: a link; a bundle holds its files itself, copy it with cp -rL"
            ) from None
        why = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: {why}; is this folder a whole bundle?") from None


def no_link(path: str, flags: int) -> int:
    """Open a file descriptor, but no symbolic link; an `opener` for `open`. Raises OSError."""
    # Without O_NONBLOCK, opening a named pipe would block until it has a writer.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _verified(folder: Path, file: BundleFile) -> bytes:
    """Return the bytes of a file whose size and hash match. Raises BundleError."""
    data = _read(folder / file.name, _MAX_FILE_BYTES)
    if describe(file.name, data) != file:
        raise BundleError(
            f"{folder / file.name}: sha256 is not the one in {MANIFEST} "
            f"({len(data)} bytes, {file.size_bytes} expected); copy the bundle again"
        )
    return data
