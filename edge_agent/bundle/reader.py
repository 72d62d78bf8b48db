"""Read a bundle from a folder and verify it: signature, form, names, sizes, hashes."""

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
    """Read and check a bundle. Raises BundleError naming the file and the fix.

    Without `trust`, as in the workshop where bundles are made, nobody asks for a signature.
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
    """The first part of `load`: bytes of `bundle.json`, what they say, and whose they are."""
    raw = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
    signed_by = _signed_by(folder, raw, trust) if trust else ""
    return raw, parse_manifest(raw, folder / MANIFEST), signed_by


def _signed_by(folder: Path, manifest: bytes, trust: Trust) -> str:
    """The key's id; empty for an unsigned bundle where that is allowed.

    A signature that is there must be good even so, unless there is no key to check it with.
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
    """`bundle.json`'s bytes as a Manifest; `path` is for the message only."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # A key may hold a line break, and msgspec repeats it as it is.
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
    """The manifest as it is written to `bundle.json`: the same manifest, the same bytes."""
    return encode_json(manifest)


def describe(name: str, data: bytes) -> BundleFile:
    """The manifest's entry for a file with this content."""
    return BundleFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def _read(path: Path, limit_bytes: int) -> bytes:
    """A plain file, no link: what lies elsewhere may be changed without touching the bundle."""
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
    except (OSError, ValueError) as error:  # ValueError: a NUL in the folder's name
        if getattr(error, "errno", None) == errno.ELOOP:
            raise BundleError(
                f"{path}: a link; a bundle holds its files itself, copy it with cp -rL"
            ) from None
        why = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: {why}; is this folder a whole bundle?") from None


def no_link(path: str, flags: int) -> int:
    # Without O_NONBLOCK opening a pipe would wait for somebody to write.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _verified(folder: Path, file: BundleFile) -> bytes:
    data = _read(folder / file.name, _MAX_FILE_BYTES)
    if describe(file.name, data) != file:
        raise BundleError(
            f"{folder / file.name}: sha256 is not the one in {MANIFEST} "
            f"({len(data)} bytes, {file.size_bytes} expected); copy the bundle again"
        )
    return data
