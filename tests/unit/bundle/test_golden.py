"""golden.npz, where it is made to harm: sizes that only a header or the directory declares."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.bundle.golden import Golden, parse_golden
from edge_agent.errors import BundleError

MB = 1 << 20


@pytest.fixture
def little_memory() -> Iterator[None]:
    """The test's body takes less than 16 MB, whatever a file declares."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MB


def _refusal(data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        parse_golden(data, Path("b/golden.npz"))
    message = str(caught.value)
    assert message.startswith("b/golden.npz: not a golden file (")
    assert len(message.splitlines()) == 1
    return message


def _npy(header: str, body: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body


def _zip(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(f"{name.replace('__', '/')}.npy", data)
    return buffer.getvalue()


def _declaring(data: bytes, size: int) -> bytes:
    """The directory of the archive says that each entry unpacks to `size` bytes."""
    changed = bytearray(data)
    at = data.find(b"PK\1\2")
    while at >= 0:
        changed[at + 24 : at + 28] = struct.pack("<I", size)
        at = data.find(b"PK\1\2", at + 1)
    return bytes(changed)


def _header(shape: str, descr: str = "|u1") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}"


def _shape(shape: str, descr: str = "|u1", body: bytes = bytes(24)) -> bytes:
    return _zip(image__00=_npy(_header(shape, descr), body))


def _array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_what_numpy_writes_is_read() -> None:
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(0, 256, s, np.uint8) for s in ((4, 6), (4, 6, 3)))
    logits = rng.normal(size=2).astype(np.float32)
    maps = np.asfortranarray(rng.integers(0, 256, (2, 4, 6, 2), np.uint8))
    arrays = {"image/00": grey, "image/01": colour, "output/g": logits, "output/s": maps}
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        golden = parse_golden(buffer.getvalue(), Path("x"))
        np.testing.assert_array_equal(golden.images[0], grey)
        np.testing.assert_array_equal(golden.images[1], colour)
        np.testing.assert_array_equal(golden.outputs["g"], logits)
        np.testing.assert_array_equal(golden.outputs["s"], maps)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("shape", ["(1000000, 1000000)", f"({10**30},)", "(2147483648, 3)"])
def test_a_shape_beyond_the_entry_is_refused_before_it_is_allocated(shape: str) -> None:
    assert "is not what it holds" in _refusal(_shape(shape))


@pytest.mark.usefixtures("little_memory")
def test_an_entry_beyond_the_limit_is_refused_before_it_is_unpacked() -> None:
    assert "more than the limit of 1073741824" in _refusal(_declaring(_shape("(4, 6)"), 2**32 - 2))


@pytest.mark.usefixtures("little_memory")
def test_many_entries_share_one_limit() -> None:
    whole = _npy(_header("(4, 6)"), bytes(24))
    data = _declaring(_zip(image__00=whole, image__01=whole, output__x=whole), 400 * MB)
    assert f"{1200 * MB} bytes unpacked" in _refusal(data)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """64 MB of zeros in 65 kB."""
    return _zip(image__00=_npy(_header(f"({64 * MB},)"), bytes(64 * MB)))


@pytest.mark.usefixtures("bomb", "little_memory")  # in this order: making it is not counted
def test_an_entry_that_unpacks_to_more_than_it_declares(bomb: bytes) -> None:
    assert len(bomb) < MB / 10
    assert "Bad CRC-32" in _refusal(_declaring(bomb, 1000))


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packed_in_a_way_that_numpy_never_does(how: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        archive.writestr("image/00.npy", bytes(100))
    assert "packed in an unknown way" in _refusal(buffer.getvalue())


def test_too_many_arrays() -> None:
    assert "more than 4096 arrays" in _refusal(_zip(**{f"x__{i}": b"" for i in range(4097)}))


@pytest.mark.parametrize(
    ("shape", "descr", "words"),
    [
        ("(4, 6)", "|O", "holds object"),
        ("(4, 6)", "|i1", "holds int8"),
        ("(3,)", "<f8", "holds float64"),
        ("(24,)", "|u1", "no frame"),
        ("()", "|u1", "is not what it holds"),
        ("(2, 3, 4)", "|u1", "no frame"),
        ("(2, 3)", "<f4", "no frame"),
        ("(0, 6)", "|u1", "is empty"),
        ("(-4, -6)", "|u1", "is empty"),
        ("(4.0, 6)", "|u1", "shape"),
        ("'ab'", "|u1", "shape"),
        ("(4, 6", "|u1", ""),
        ("(" * 3000 + ")" * 3000, "|u1", ""),
        ("-" * 9000 + "1", "|u1", ""),
    ],
)
def test_headers_of_no_golden_array(shape: str, descr: str, words: str) -> None:
    assert words in _refusal(_shape(shape, descr))


def test_other_versions_of_the_format() -> None:
    for version in (b"\0\0", b"\3\0", b"\xff\xff"):
        _refusal(_zip(image__00=_npy(_header("(4, 6)"), bytes(24), version)))


SHAPES = ["(4, 6)", "(4, 6, 3)", "(24,)", "()", "(99999999999,)", "(-1,)", "(True, 24)", "None"]
DESCRS = ["|u1", "<f4", ">f4", "|O", "|V8", "|S9999", "<M8[ns]", "('<i4', (9, 9))", "u", ""]


@pytest.mark.slow
@given(seed=st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_any_golden_file_is_read_or_refused(seed: int) -> None:
    """50 files an example: bytes changed in the archive, and headers put together at random."""
    rng = random.Random(seed)
    good = _zip(
        image__00=_array(np.full((4, 6), 10, np.uint8)),
        output__gate=_array(np.zeros(1, np.float32)),
    )
    for _ in range(50):
        if rng.random() < 0.5:
            data = bytearray(good)
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            data = data[: rng.randint(len(data) // 2, len(data))] if rng.random() < 0.2 else data
        else:
            header = _header(rng.choice(SHAPES), rng.choice(DESCRS))
            if rng.random() < 0.3:
                at = rng.randrange(len(header))
                header = header[:at] + chr(rng.randrange(1, 256)) + header[at + 1 :]
            body = _npy(header, rng.randbytes(rng.choice((0, 4, 24, 72))))
            data = bytearray(_declaring(_zip(image__00=body), rng.choice((0, 90, len(body)))))
        try:
            assert isinstance(parse_golden(bytes(data), Path("x")), Golden)
        except BundleError as error:
            assert len(str(error).splitlines()) == 1
        except BaseException as error:
            raise AssertionError(bytes(data)) from error
