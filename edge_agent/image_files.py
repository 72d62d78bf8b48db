"""Image files as grey or RGB frames: accepted suffixes, size limit, checks while reading."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_agent.frame import Image

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"})
_MAX_FILE_BYTES = 256 << 20
_TAIL_BYTES = 1024  # some cameras append a few bytes after the end marker


def read_image(path: Path) -> Image:
    """Read an image file; return uint8 (lines, pixels), or (lines, pixels, 3) for RGB.

    Stricter than OpenCV, which fills the rest of a truncated JPEG or PNG with grey and returns it.

    Raises:
        ValueError: The file cannot be read, is truncated, or is not an 8-bit grey or RGB image.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    tail = data[-_TAIL_BYTES:]
    if (data.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail) or (
        data.startswith(b"\x89PNG") and b"IEND" not in tail
    ):
        raise ValueError("truncated: the file ends before the picture does")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise ValueError(f"not a picture OpenCV can read: {error.err}") from None
    if image is None:
        raise ValueError("not a picture (unknown format or empty)")
    if image.dtype != np.uint8:
        raise ValueError(f"{image.dtype} pixels; 8 bits a channel are accepted")
    if image.ndim == 3 and image.shape[2] != 3:
        raise ValueError(f"{image.shape[2]} channels; grey or RGB are accepted")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.asarray(image, dtype=np.uint8)
