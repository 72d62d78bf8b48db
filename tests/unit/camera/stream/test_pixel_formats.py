"""Every pixel format to 8 bits, against arithmetic on whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.camera.stream.pixel_formats import PIXEL_FORMATS, decode, known, payload_bytes


def _lsb_packed(values: list[int], bits: int) -> bytes:
    """One number after the other, the low bits first: as the PFNC packs."""
    whole = sum(value << (bits * i) for i, value in enumerate(values))
    return whole.to_bytes(-(-len(values) * bits // 8), "little")


def _gev_packed(values: list[int], bits: int) -> bytes:
    """GigE Vision's: upper 8, low bits of both, upper 8."""
    packed = bytearray()
    for i in range(0, len(values) - 1, 2):
        one, other = values[i], values[i + 1]
        low = bits - 8
        mask = (1 << low) - 1
        packed += bytes((one >> low, (one & mask) | (other & mask) << 4, other >> low))
    if len(values) % 2:
        packed += bytes((values[-1] >> (bits - 8), values[-1] & ((1 << (bits - 8)) - 1)))
    return bytes(packed)


@given(
    bits=st.sampled_from([10, 12]),
    packing=st.sampled_from(["p", "Packed", ""]),
    data=st.data(),
    lines=st.integers(1, 5),
    width=st.integers(1, 13),
)
@settings(deadline=None)
def test_the_upper_8_bits_are_kept(
    bits: int, packing: str, data: st.DataObject, lines: int, width: int
) -> None:
    count = lines * width
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))
    if packing == "p":
        payload = _lsb_packed(values, bits)
    elif packing == "Packed":
        payload = _gev_packed(values, bits)
    else:
        payload = np.array(values, "<u2").tobytes()
    name = f"Mono{bits}{packing}"
    assert payload_bytes(name, lines, width) == len(payload)
    image = decode(np.frombuffer(payload, np.uint8), name, lines, width, colour=True)
    assert image.shape == (lines, width)
    assert image.ravel().tolist() == [value >> (bits - 8) for value in values]


@pytest.mark.parametrize("bits", [14, 16])
def test_wide_containers(bits: int) -> None:
    values = np.array([[0, 1 << (bits - 8), 2**bits - 1]], "<u2")
    assert decode(values, f"Mono{bits}", 1, 3, colour=False).tolist() == [[0, 1, 255]]


def test_mono8_and_rgb8_are_not_copied() -> None:
    grey, rgb = np.arange(12, dtype=np.uint8), np.arange(12, dtype=np.uint8)
    assert np.shares_memory(decode(grey, "Mono8", 3, 4, colour=True), grey)
    assert np.shares_memory(decode(rgb, "RGB8", 2, 2, colour=True), rgb)


def test_blue_first_comes_as_rgb() -> None:
    bgr = np.array([[[30, 20, 200]]], np.uint8)
    assert decode(bgr, "BGR8", 1, 1, colour=True).tolist() == [[[200, 20, 30]]]


def test_colour_to_grey_by_bt_601() -> None:
    rgb = np.array([[[200, 20, 30], [0, 255, 0]]], np.uint8)
    grey = decode(rgb, "RGB8", 1, 2, colour=False)
    assert grey.tolist() == [[round(0.299 * 200 + 0.587 * 20 + 0.114 * 30), round(0.587 * 255)]]


@pytest.mark.parametrize("pattern", ["RG", "GR", "GB", "BG"])
@pytest.mark.parametrize("depth", ["8", "12", "12p"])
def test_a_pattern_of_one_colour_is_that_colour(pattern: str, depth: str) -> None:
    """The PFNC names the first two pixels of the first line."""
    red, green, blue = 200, 90, 30
    first = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}[pattern]
    value = {"R": red, "G": green, "B": blue}
    tile = np.array([[value[first[0]], value[first[1]]], [value[first[2]], value[first[3]]]])
    mosaic = np.tile(tile, (4, 4))
    if depth == "8":
        data = mosaic.astype(np.uint8)
    elif depth == "12":
        data = (mosaic << 4).astype("<u2")
    else:
        data = np.frombuffer(_lsb_packed((mosaic << 4).ravel().tolist(), 12), np.uint8)
    name = f"Bayer{pattern}{depth}"
    image = decode(data, name, 8, 8, colour=True)
    assert image.shape == (8, 8, 3)
    assert image[4, 4].tolist() == [red, green, blue]
    grey = round(0.299 * red + 0.587 * green + 0.114 * blue)
    assert decode(data, name, 8, 8, colour=False)[4, 4] == grey


def test_an_unknown_format_is_named_with_those_that_are_known() -> None:
    assert not known("YUV422_8")
    with pytest.raises(ValueError, match=r"^pixel format 'YUV422_8' is not known; .*Mono12p"):
        decode(np.zeros(4, np.uint8), "YUV422_8", 1, 2, colour=True)


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_a_payload_of_another_size_is_refused(name: str) -> None:
    wanted = payload_bytes(name, 4, 6)
    assert decode(np.zeros(wanted, np.uint8), name, 4, 6, colour=False).shape == (4, 6)
    for size in (wanted - 1, wanted + 1, 0):
        with pytest.raises(ValueError, match=f"{size} bytes for 6x4 px of {name}"):
            decode(np.zeros(size, np.uint8), name, 4, 6, colour=False)
