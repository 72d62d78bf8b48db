"""Conversion of camera pixel formats to uint8 grey or RGB.

Format names are those of the GenICam PFNC, plus the packed formats of GigE Vision 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.frame import Image

Bytes = NDArray[np.uint8]


def _as_is(data: Bytes) -> Bytes:
    return data


def _upper(bits: int) -> Callable[[Bytes], Bytes]:
    """Return a function that keeps the upper 8 of `bits` bits, stored low in 16 bits, LE."""

    def unpack(data: Bytes) -> Bytes:
        return (data.view("<u2") >> (bits - 8)).astype(np.uint8)

    return unpack


def _lsb10(data: Bytes) -> Bytes:
    """Unpack four pixels from five bytes, low bits first: pixel k has bits 10 k to 10 k + 9."""
    group = data.reshape(-1, 5)
    out = np.empty((len(group), 4), np.uint8)
    for k in range(4):
        low = 2 * k + 2  # number of the pixel's upper 8 bits that lie in the next byte
        out[:, k] = (group[:, k] >> low if low < 8 else 0) | (group[:, k + 1] << (8 - low))
    return out.reshape(-1)


def _lsb12(data: Bytes) -> Bytes:
    """Unpack two pixels from three bytes, low bits first."""
    group = data.reshape(-1, 3)
    out = np.empty((len(group), 2), np.uint8)
    out[:, 0] = (group[:, 0] >> 4) | (group[:, 1] << 4)
    out[:, 1] = group[:, 2]
    return out.reshape(-1)


def _gev_packed(data: Bytes) -> Bytes:
    """Unpack GigE Vision 1: the upper 8 bits of two pixels around one byte of low bits."""
    return np.ascontiguousarray(data.reshape(-1, 3)[:, ::2]).reshape(-1)


@dataclass(frozen=True, slots=True)
class _Format:
    """Layout of a pixel format: `group` pixels are packed into `bytes` bytes.

    `unpack` converts the payload to one byte per sample.
    """

    unpack: Callable[[Bytes], Bytes]
    group: int = 1
    bytes: int = 1
    channels: int = 1
    to_rgb: int | None = None
    """OpenCV's conversion code if the samples are colour but not RGB."""


# OpenCV's plain names (BayerBG) use the second row of a pattern, the PFNC its first row.
_BAYER = {
    "RG": cv2.COLOR_BayerRGGB2RGB,
    "BG": cv2.COLOR_BayerBGGR2RGB,
    "GR": cv2.COLOR_BayerGRBG2RGB,
    "GB": cv2.COLOR_BayerGBRG2RGB,
}


def _packings(name: str, to_rgb: int | None = None) -> dict[str, _Format]:
    made = {
        f"{name}8": _Format(_as_is, to_rgb=to_rgb),
        f"{name}10p": _Format(_lsb10, 4, 5, to_rgb=to_rgb),
        f"{name}12p": _Format(_lsb12, 2, 3, to_rgb=to_rgb),
        f"{name}10Packed": _Format(_gev_packed, 2, 3, to_rgb=to_rgb),
        f"{name}12Packed": _Format(_gev_packed, 2, 3, to_rgb=to_rgb),
    }
    for bits in (10, 12, 14, 16):
        made[f"{name}{bits}"] = _Format(_upper(bits), 1, 2, to_rgb=to_rgb)
    return made


_FORMATS = _packings("Mono") | {
    "RGB8": _Format(_as_is, 1, 3, channels=3),
    "RGB8Packed": _Format(_as_is, 1, 3, channels=3),
    "BGR8": _Format(_as_is, 1, 3, channels=3, to_rgb=cv2.COLOR_BGR2RGB),
    "BGR8Packed": _Format(_as_is, 1, 3, channels=3, to_rgb=cv2.COLOR_BGR2RGB),
}
for _name, _code in _BAYER.items():
    _FORMATS |= _packings(f"Bayer{_name}", _code)

PIXEL_FORMATS = tuple(sorted(_FORMATS))


def known(pixel_format: str) -> bool:
    """Return True if the format can be decoded."""
    return pixel_format in _FORMATS


def payload_bytes(pixel_format: str, lines: int, width_px: int) -> int:
    """Return the size of a whole block in bytes; raises ValueError for an unknown format."""
    form = _format(pixel_format)
    groups, rest = divmod(lines * width_px, form.group)
    # An incomplete group takes as many whole bytes as its bits need.
    return groups * form.bytes + -(-rest * form.bytes // form.group)


def decode(
    data: NDArray[Any], pixel_format: str, lines: int, width_px: int, *, colour: bool
) -> Image:
    """Decode a payload to uint8 (lines, width_px), or (lines, width_px, 3) as RGB.

    Formats of more than 8 bits keep the upper 8 bits (shift, no rounding, no stretching). A camera
    set to Mono8 does the same, so both give the same image. Bayer to colour is OpenCV's bilinear
    interpolation; colour to grey is ITU-R BT.601. The Bayer pattern restarts with each block.

    Args:
        data: Payload of a block, any dtype and shape.
        pixel_format: PFNC name.
        lines: Number of lines.
        width_px: Pixels per line.
        colour: Return a colour camera's image as RGB, else as grey.

    Returns:
        The image; for Mono8 and RGB8 a view of `data`, not a copy.

    Raises:
        ValueError: The format is unknown or the payload has another size.
    """
    form = _format(pixel_format)
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    wanted = payload_bytes(pixel_format, lines, width_px)
    if raw.size != wanted:
        raise ValueError(
            f"{raw.size} bytes for {width_px}x{lines} px of {pixel_format}, which are {wanted}"
        )
    if raw.size % form.bytes:
        raw = np.concatenate((raw, np.zeros(form.bytes - raw.size % form.bytes, np.uint8)))
    samples = form.unpack(raw)[: lines * width_px * form.channels]
    image: Image
    if form.channels == 3:
        image = samples.reshape(lines, width_px, 3)
    else:
        image = samples.reshape(lines, width_px)
    if form.to_rgb is not None:
        image = np.asarray(cv2.cvtColor(image, form.to_rgb), np.uint8)
    if image.ndim == 3 and not colour:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    return image


def _format(pixel_format: str) -> _Format:
    try:
        return _FORMATS[pixel_format]
    except KeyError:
        raise ValueError(
            f"pixel format {pixel_format!r} is not known; the camera may be set to one of "
            "Mono8, Mono10, Mono10p, Mono12, Mono12p, Mono16, BayerRG8 (GR, GB, BG), RGB8, BGR8"
        ) from None
