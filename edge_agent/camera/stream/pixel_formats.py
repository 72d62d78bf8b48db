"""A camera's pixel format to what the bundle sees: uint8, grey or RGB, by one rule.

The rule: of more than 8 bits the upper 8 are kept (a shift, no rounding, no stretching), which is
what a camera does that is set to Mono8; so the two give the same image. Colour from Bayer is
OpenCV's bilinear; grey from colour is ITU-R BT.601. Names are those of the GenICam PFNC, with the
packed formats of GigE Vision 1.
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
    """Of `bits` in the low end of 16, little endian, the upper 8."""

    def unpack(data: Bytes) -> Bytes:
        return (data.view("<u2") >> (bits - 8)).astype(np.uint8)

    return unpack


def _lsb10(data: Bytes) -> Bytes:
    """Four pixels in five bytes, the low bits first: pixel k has bits 10 k to 10 k + 9."""
    group = data.reshape(-1, 5)
    out = np.empty((len(group), 4), np.uint8)
    for k in range(4):
        low = 2 * k + 2  # of the pixel's upper 8 bits, so many lie in the next byte's high end
        out[:, k] = (group[:, k] >> low if low < 8 else 0) | (group[:, k + 1] << (8 - low))
    return out.reshape(-1)


def _lsb12(data: Bytes) -> Bytes:
    """Two pixels in three bytes, the low bits first."""
    group = data.reshape(-1, 3)
    out = np.empty((len(group), 2), np.uint8)
    out[:, 0] = (group[:, 0] >> 4) | (group[:, 1] << 4)
    out[:, 1] = group[:, 2]
    return out.reshape(-1)


def _gev_packed(data: Bytes) -> Bytes:
    """GigE Vision's own: the upper 8 bits of two pixels around one byte of low bits."""
    return np.ascontiguousarray(data.reshape(-1, 3)[:, ::2]).reshape(-1)


@dataclass(frozen=True, slots=True)
class _Format:
    """`unpack` gives a byte a sample. `group`: so many pixels are packed into `bytes`."""

    unpack: Callable[[Bytes], Bytes]
    group: int = 1
    bytes: int = 1
    channels: int = 1
    to_rgb: int | None = None
    """OpenCV's code, where the samples are colour and not yet RGB."""


# OpenCV names a pattern by its second row, the PFNC by its first.
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
    return pixel_format in _FORMATS


def payload_bytes(pixel_format: str, lines: int, width_px: int) -> int:
    """Of a whole block. ValueError for an unknown format."""
    form = _format(pixel_format)
    groups, rest = divmod(lines * width_px, form.group)
    # What is left of a group takes as many bytes as its bits need.
    return groups * form.bytes + -(-rest * form.bytes // form.group)


def decode(
    data: NDArray[Any], pixel_format: str, lines: int, width_px: int, *, colour: bool
) -> Image:
    """uint8 (lines, width_px), or RGB (lines, width_px, 3) of a colour camera with `colour`.

    Mono8 and RGB8 are a view of `data`, not a copy. ValueError for an unknown format or a payload
    of another size. A Bayer pattern is taken to begin anew with each block.
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
