"""Golden file `golden.npz`: frames with the outputs of each artifact at its export.

Declared sizes are checked against limits before an array is allocated for them.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import BundleError, one_line
from edge_agent.frame import Image

_MAX_BYTES = 1 << 30
"""Limit for all arrays together, unpacked."""
_MAX_ARRAYS = 4096

_npy: Any = np.lib.format  # numpy 1 has no types for it


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Golden frames with the outputs of each artifact at its export.

    `images`: n frames, with m tiles in all in the order of `tile_boxes` (without tiles m is n).
    `outputs`: per artifact file name, the gate's logits as float32 (m,) or the segmenter's
    probabilities as uint8 (m, h, w, classes), where 255 is probability 1.
    """

    images: tuple[Image, ...]
    outputs: dict[str, NDArray[np.float32] | NDArray[np.uint8]]

    @property
    def frame_lines(self) -> int | None:
        """Return the height of the golden frames in lines; None if they differ."""
        heights = {int(image.shape[0]) for image in self.images}
        return heights.pop() if len(heights) == 1 else None


def parse_golden(data: bytes, path: Path) -> Golden:
    """Return the content of `golden.npz`.

    `path` is used in the message only. Raises BundleError.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _entries(archive)
            images = [_image(archive, entries[k]) for k in sorted(entries) if k[0] == "image"]
            outputs = {k[1]: _array(archive, e) for k, e in entries.items() if k[0] == "output"}
    except Exception as error:  # zipfile, zlib and numpy each have their own, and MemoryError
        why = one_line(error)
        raise BundleError(f"{path}: not a golden file ({why}); export again") from None
    return Golden(tuple(images), outputs)


def _entries(archive: zipfile.ZipFile) -> dict[tuple[str, str], zipfile.ZipInfo]:
    """Return the entries by ("image" or "output", rest of the name).

    Raises ValueError if a limit is exceeded.
    """
    found = {}
    for entry in archive.infolist():
        kind, _, name = entry.filename.removesuffix(".npy").partition("/")
        if kind in ("image", "output"):
            found[kind, name] = entry
            # Other methods (bzip2, LZMA) unpack more at a time than was requested.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename} is packed in an unknown way")
    if len(archive.infolist()) > _MAX_ARRAYS:
        raise ValueError(f"more than {_MAX_ARRAYS} arrays")
    size = sum(entry.file_size for entry in found.values())
    if size > _MAX_BYTES:
        raise ValueError(f"{size} bytes unpacked, more than the limit of {_MAX_BYTES}")
    return found


def _image(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Image:
    """Return a frame, uint8 (h, w) or (h, w, 3). Raises ValueError."""
    image = _array(archive, entry)
    if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2:
        raise ValueError(f"{entry.filename} is {image.dtype} {image.shape}, no frame")
    return np.asarray(image, np.uint8)


def _array(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Return one array of type uint8 or float32.

    Raises ValueError for another type, or if the header's shape does not match the entry's size.
    `_entries` limits that size, and zipfile unpacks no more than it.
    """
    with archive.open(entry) as file:
        version = _npy.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = _npy.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = _npy.read_array_header_2_0(file)
        if dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
            raise ValueError(f"{entry.filename} holds {dtype}")
        if min(shape, default=1) < 1:
            raise ValueError(f"{entry.filename} is empty")
        size = math.prod(shape) * dtype.itemsize
        if size != entry.file_size - file.tell():
            raise ValueError(f"{entry.filename}: {shape} is not what it holds")
        data = file.read(size)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
