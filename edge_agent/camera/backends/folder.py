"""Folder backend: image files as blocks.

Order: by name, or, with `follow`, the order in which the files are finished.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from edge_agent.camera.base import CameraLost, EndOfStream, LossReason, StreamCounters
from edge_agent.config.camera import FolderCamera
from edge_agent.errors import CameraError
from edge_agent.frame import Block, GapReason, Image, LineSpan
from edge_agent.image_files import SUFFIXES, read_image

_SETTLE_S = 0.3
"""A followed file is read once its size and time have not changed for this time, in s."""
_LOOK_S = 0.05


class FolderBackend:
    """Folder of images as a camera.

    The first readable image sets the size; another size is a fault unless `mixed_sizes` is set.
    """

    live = False
    first_block_id: int | None = 0

    def __init__(self, config: FolderCamera) -> None:
        if config.follow and config.loop:
            raise CameraError("camera.loop: true with camera.follow; choose one of them")
        self._config, self._folder = config, Path(config.path)
        self._block_id = 0
        self._shape: tuple[int, int] | None = None
        self._arrivals = FinishedFiles(self._folder) if config.follow else None
        self._names: list[str] = []
        if self._arrivals:
            self._arrivals.look()
            return
        try:
            self._names = sorted(
                p.name for p in self._folder.iterdir() if p.suffix.lower() in SUFFIXES
            )
        except OSError as error:
            raise CameraError(_no_folder(config.path, error)) from None
        if not self._names:
            raise CameraError(f"camera.path: {config.path}: no image files in this folder")

    def grab(self, timeout_s: float) -> Block | None:
        """Return the next image as a block; None if no file is finished within `timeout_s`.

        An unreadable image becomes a block with a fault. Raises EndOfStream after the last file,
        CameraLost if a followed folder is gone.
        """
        name = self._next_name(timeout_s)
        if name is None:
            return None
        # A file name can be invalid UTF-8 or contain newlines; a message allows neither.
        shown = name if name.isprintable() else ascii(name)
        block_id = self._block_id
        self._block_id += 1
        image, fault = None, ""
        try:
            image = read_image(self._folder / name)
            self._check_size(image)
        except ValueError as error:
            # The strip moved on regardless: count the lines of a whole frame.
            image, fault = None, f"{shown}: {error}"
        lines, pixels = image.shape[:2] if image is not None else (self._shape or (None, 0))
        return Block(
            data=image,
            pixel_format="RGB8" if image is not None and image.ndim == 3 else "Mono8",
            width_px=pixels,
            span=LineSpan(
                first_line=0,
                line_count=lines,
                captured_utc_ns=time.time_ns(),
                captured_monotonic_ns=time.monotonic_ns(),
            ),
            block_id=block_id,
            fault=fault,
            fault_reason=GapReason.BAD_FRAME,
            source=shown,
        )

    def _next_name(self, timeout_s: float) -> str | None:
        if self._arrivals:
            return self._arrivals.next(timeout_s)
        if self._block_id >= len(self._names) and not self._config.loop:
            raise EndOfStream
        return self._names[self._block_id % len(self._names)]

    def _check_size(self, image: Image) -> None:
        shape = (int(image.shape[0]), int(image.shape[1]))
        if self._shape is None or self._config.mixed_sizes:
            self._shape = shape
        elif shape != self._shape:
            raise ValueError(
                f"{shape[1]}x{shape[0]} px, but the run's frames are "
                f"{self._shape[1]}x{self._shape[0]}; set camera.mixed_sizes to accept it"
            )

    def counters(self) -> StreamCounters:
        """Return the counters: no block is ever lost."""
        return StreamCounters(lost_blocks=0)

    def close(self) -> None:
        """Do nothing: no file stays open between frames."""


@dataclass(frozen=True, slots=True, order=True)
class _Version:
    """Version of a file; a file rewritten under its old name is a new image."""

    mtime_ns: int
    name: str
    size: int
    inode: int


class FinishedFiles:
    """Watcher of a folder that yields each image file once, after it is finished.

    A file is finished when its size and time have not changed for _SETTLE_S, so that no partly
    written file is read, even if it was not renamed into place. Files present at the start come
    first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[_Version, float]] = {}
        self._given: dict[str, _Version] = {}
        self._ready: deque[str] = deque()

    def look(self) -> None:
        """Scan the folder and queue the finished files; raises CameraLost if the folder is gone."""
        now = time.monotonic()
        there: dict[str, _Version] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if Path(entry.name).suffix.lower() in SUFFIXES:
                        there[entry.name] = _version(entry)
        except OSError as error:
            message = _no_folder(str(self._folder), error)
            raise CameraLost(LossReason.NOT_FOUND, message) from None
        self._given = {n: v for n, v in self._given.items() if n in there}
        before, self._seen = self._seen, {}
        for name, version in there.items():
            if self._given.get(name) != version:
                known = before.get(name)
                since = known[1] if known and known[0] == version else now
                self._seen[name] = (version, since)
        for version in sorted(v for v, since in self._seen.values() if now - since >= _SETTLE_S):
            self._given[version.name] = version
            self._ready.append(version.name)

    def next(self, timeout_s: float) -> str | None:
        """Return the name of the next finished file; None if none is finished in time."""
        end = time.monotonic() + timeout_s
        while True:
            if not self._ready:
                self.look()
            if self._ready:
                return self._ready.popleft()
            left_s = end - time.monotonic()
            if left_s <= 0:
                return None
            time.sleep(min(_LOOK_S, left_s))


def _version(entry: os.DirEntry[str]) -> _Version:
    try:
        found = entry.stat()
    except OSError:  # a broken link or a deleted file: handled as an unreadable image
        return _Version(0, entry.name, 0, 0)
    return _Version(found.st_mtime_ns, entry.name, found.st_size, found.st_ino)


def _no_folder(path: str, error: OSError) -> str:
    return f"camera.path: {path}: {error.strerror}; give a folder of images"
