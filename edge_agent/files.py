"""Files that are replaced atomically and durably, and checked when they are read."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_agent.errors import one_line

_T = TypeVar("_T")


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end move that file to `path`.

    `path` has either the old content or the new, never a part of it; after an error it has the old.
    With `durable` the new content also survives a power cut. One writer at a time. Raises OSError.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        yield new
        if durable:
            with new.open("rb") as file:
                os.fsync(file.fileno())
        new.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            new.unlink()


def write(path: Path, data: bytes | memoryview) -> None:
    """Write and sync a file. Raises OSError.

    Only the content is durable; its name is durable after `sync_folder`.
    """
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def encode_json(value: object) -> bytes:
    """Return a value as indented JSON; the same value gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def write_json(path: Path, value: msgspec.Struct) -> None:
    """Write a value as indented JSON, and sync it as `write` does. Raises OSError."""
    write(path, encode_json(value))


def sync_folder(folder: Path) -> None:
    """Make creations, renames and removals in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path, kind: type[_T], max_bytes: int) -> _T:
    """Return the content of a JSON file as `kind`, of at most `max_bytes`.

    Raises OSError, or ValueError with the reason for a damaged file.
    """
    with path.open("rb") as file:
        raw = file.read(max_bytes)
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"damaged ({one_line(error)})") from None


def set_aside(path: Path) -> Path:
    """Quarantine a damaged file: rename it, keep it for analysis, return the new path."""
    return path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))
