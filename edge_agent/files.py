"""Files that are replaced as a whole, outlive a power cut, and are read back with distrust."""

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
    """Give a name beside `path` to write a file to; move that file to `path` at the end.

    `path` then has the old content or the new, never half of it, and after an error the old. It is
    the new one after a power cut too, unless `durable` is false. One writer at a time. Raises
    OSError.
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
    """On the disk when this returns; its name is after `sync_folder`. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def encode_json(value: object) -> bytes:
    """Return a value as JSON laid out for people: the same value, the same bytes."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def write_json(path: Path, value: msgspec.Struct) -> None:
    """As `write`; laid out for people too."""
    write(path, encode_json(value))


def sync_folder(folder: Path) -> None:
    """What was created in it, moved or removed is so after a power cut too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path, kind: type[_T], max_bytes: int) -> _T:
    """Raises OSError, and ValueError with the reason for one that is damaged."""
    with path.open("rb") as file:
        raw = file.read(max_bytes)
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"damaged ({one_line(error)})") from None


def set_aside(path: Path) -> Path:
    """A damaged file under another name, for whoever wants to know why."""
    return path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))
