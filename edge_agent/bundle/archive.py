"""Bundle archive: one zip file with the uncompressed files that the manifest names.

The same bundle gives the same bytes. Only manifest and signature are written to the disk before the
signature is verified, only names from the manifest are used, and declared sizes are checked.
"""

# These checks run before zipfile's: zipfile reads a file list of any length into memory, and
# accepts links, folders and compressed entries, which a bundle does not need.

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_agent import files
from edge_agent.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, Bundle, BundleFile, Manifest
from edge_agent.bundle.reader import read_manifest
from edge_agent.bundle.signature import MAX_BYTES as MAX_SIGNATURE_BYTES
from edge_agent.bundle.signature import SIGNATURE, Trust
from edge_agent.errors import BundleError

_MAX_BYTES = (1 << 32) - 1
"""Largest zip file without the zip64 extensions, which the archive does not use."""
_MAX_DIRECTORY_BYTES = 1 << 16
"""Limit for the central directory of the zip; 64 artifacts take a tenth of it."""
_END = struct.Struct("<4s4HLLH")
_ZIP64_LOCATOR = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_ENCRYPTED = 1


def pack(bundle: Bundle, out: Path) -> None:
    """Write the archive of a loaded bundle, with its signature if it has one.

    Order, times and modes are fixed, so that the bytes are reproducible. Files in the folder that
    the manifest does not name are left out. Raises BundleError.
    """
    names = [MANIFEST, *_files(bundle.manifest)]
    if (bundle.folder / SIGNATURE).is_file():
        names.insert(1, SIGNATURE)
    try:
        with (
            files.replacing(out) as new,
            zipfile.ZipFile(new, "w", zipfile.ZIP_STORED, allowZip64=False) as archive,
        ):
            for name in names:
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                entry.file_size = (bundle.folder / name).stat().st_size
                with (bundle.folder / name).open("rb") as source, archive.open(entry, "w") as to:
                    shutil.copyfileobj(source, to, 1 << 20)
    except (OSError, zipfile.LargeZipFile) as error:
        why = getattr(error, "strerror", None) or "more than 4 GB, leave out some forms"
        raise BundleError(f"{out}: {why}; give a file that can be written") from None


@contextmanager
def opened(path: Path, trust: Trust | None = None) -> Iterator[Path]:
    """Yield the bundle's folder: `path` itself, or a temporary folder with the archive unpacked.

    The temporary folder is removed at the end; a bundle loaded from it stays usable. The signature
    is checked before the rest is unpacked; the caller must still call `load`. Raises BundleError.
    """
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="linegate-") as name:
        try:
            _unpack(path, Path(name), trust)
            yield Path(name)
        except BundleError as error:
            # A temporary name is of no use in a message.
            raise BundleError(str(error).replace(name, str(path))) from None


def manifest_sha256(path: Path) -> str:
    """Return the hash of `bundle.json` in a folder or archive; "" if it cannot be read.

    Nothing else of the bundle is checked.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                _check_end(file)
                with zipfile.ZipFile(file) as archive:
                    raw = archive.open(_entries(archive)[MANIFEST]).read(MAX_MANIFEST_BYTES + 1)
        else:
            with (path / MANIFEST).open("rb") as file:
                raw = file.read(MAX_MANIFEST_BYTES + 1)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError, EOFError):
        return ""
    return hashlib.sha256(raw).hexdigest()


def _unpack(path: Path, folder: Path, trust: Trust | None) -> None:
    """Unpack an archive into a folder; the signature is verified after the first two files."""
    try:
        with path.open("rb") as file:
            _check_end(file)
            with zipfile.ZipFile(file) as archive:
                entries = _entries(archive)
                for name, limit in (
                    (MANIFEST, MAX_MANIFEST_BYTES),
                    (SIGNATURE, MAX_SIGNATURE_BYTES),
                ):
                    if name in entries:
                        _write(archive, entries.pop(name), folder, limit)
                _, manifest, _ = read_manifest(folder, trust)
                for name, described in _files(manifest).items():
                    if (entry := entries.pop(name, None)) is None:
                        raise ValueError(f"{name} is not in it")
                    if entry.file_size != described.size_bytes:
                        raise ValueError(
                            f"{name} has {entry.file_size} bytes, {described.size_bytes} expected"
                        )
                    _write(archive, entry, folder, described.size_bytes)
                if entries:
                    raise ValueError(f"{min(entries)} is not in its {MANIFEST}")
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise BundleError(f"{path}: not a whole packed bundle ({why}); copy it again") from None


def _check_end(file: BinaryIO) -> None:
    """Raise ValueError unless the file ends as `pack` writes it.

    The zipfile module would read a central directory of any length into memory.
    """
    size = file.seek(0, 2)
    if size > _MAX_BYTES:
        raise ValueError(f"{size} bytes, more than the limit of {_MAX_BYTES}")
    tail = _END.size + _ZIP64_LOCATOR_BYTES
    file.seek(max(0, size - tail))
    last = file.read(tail)
    if len(last) < tail:
        raise ValueError("too short")
    magic, *_, directory_bytes, _, comment_bytes = _END.unpack(last[-_END.size :])
    if magic != b"PK\x05\x06" or comment_bytes or last.startswith(_ZIP64_LOCATOR):
        raise ValueError("it does not end as a bundle does")
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ValueError("its list of files is too long")
    file.seek(0)


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name; raise ValueError for one that `pack` does not write."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.orig_filename
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is no plain name")
        if name in found:
            raise ValueError(f"{name} is there twice")
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.compress_size != entry.file_size
            or entry.flag_bits & _ENCRYPTED
        ):
            raise ValueError(f"{name} is not stored as it is")
        found[name] = entry
    return found


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, limit: int) -> None:
    """Unpack one entry of at most `limit` bytes. Raises ValueError."""
    if entry.file_size > limit:
        raise ValueError(f"{entry.filename} has {entry.file_size} bytes, more than {limit}")
    with archive.open(entry) as source, (folder / entry.filename).open("xb") as to:
        shutil.copyfileobj(source, to, 1 << 20)


def _files(manifest: Manifest) -> dict[str, BundleFile]:
    """Return the files that the manifest names, by name, in its order."""
    stages = (manifest.gate, manifest.segmenter)
    named = [manifest.golden, *(one.file for stage in stages for one in stage.artifacts)]
    return {file.name: file for file in named}
