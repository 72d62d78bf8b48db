"""`golden.npz`: frames with the outputs each artifact gave for them when it was made.

What the file declares is held against limits before it is believed: no array is allocated for a
size that only a header or the directory of the archive speaks of.
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
"""Of all arrays together, unpacked."""
_MAX_ARRAYS = 4096

_npy: Any = np.lib.format  # numpy 1 has no types for it


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Frames with the outputs each artifact gave for them when it was made.

    `images`: n frames, which have m tiles in all in the order of `tile_boxes` (without tiles m is
    n); `outputs`: per artifact file name, the gate's logits as float32 (m,) or the segmenter's
    probabilities as uint8 (m, h, w, classes), 255 for 1.
    """

    images: tuple[Image, ...]
    outputs: dict[str, NDArray[np.float32] | NDArray[np.uint8]]

    @property
    def frame_lines(self) -> int | None:
        """The height of the frames the bundle was made for; None if these have several."""
        heights = {int(image.shape[0]) for image in self.images}
        return heights.pop() if len(heights) == 1 else None


def parse_golden(data: bytes, path: Path) -> Golden:
    """The file's bytes as Golden; `path` is for the message only. Raises BundleError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _entries(archive)
            images = [_image(archive, entries[k]) for k in sorted(entries) if k[0] == "image"]
            outputs = {k[1]: _array(archive, e) for k, e in entries.items() if k[0] == "output"}
    except Exception as error:  # zipfile, zlib and numpy each raise their own, and MemoryError
        why = one_line(error)
        raise BundleError(f"{path}: not a golden file ({why}); export again") from None
    return Golden(tuple(images), outputs)


def _entries(archive: zipfile.ZipFile) -> dict[tuple[str, str], zipfile.ZipInfo]:
    """By ("image" or "output", rest of the name). ValueError where the limits do not hold."""
    found = {}
    for entry in archive.infolist():
        kind, _, name = entry.filename.removesuffix(".npy").partition("/")
        if kind in ("image", "output"):
            found[kind, name] = entry
            # Others (bzip2, LZMA) unpack more at a time than they are asked for.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename} is packed in an unknown way")
    if len(archive.infolist()) > _MAX_ARRAYS:
        raise ValueError(f"more than {_MAX_ARRAYS} arrays")
    size = sum(entry.file_size for entry in found.values())
    if size > _MAX_BYTES:
        raise ValueError(f"{size} bytes unpacked, more than the limit of {_MAX_BYTES}")
    return found


def _image(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Image:
    image = _array(archive, entry)
    if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2:
        raise ValueError(f"{entry.filename} is {image.dtype} {image.shape}, no frame")
    return np.asarray(image, np.uint8)


def _array(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """ValueError for other types than uint8 and float32, and where the header's shape is not of
    the entry's size: `_entries` has set a limit to that, and zipfile unpacks no more than it.
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
