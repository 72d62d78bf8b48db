"""Run-length masks as Kaggle defines them: column-major, counted from 1, "start length ..."."""

# Own implementation: COCO's mask API counts from the first background pixel and compresses, needs
# a compiled wheel, and does not validate its input. This one encodes a box of a mask and refuses
# invalid text.

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_PLAIN = frozenset("0123456789-")
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_SHOWN = 24  # characters of an invalid number in the error


def encode(mask: NDArray[np.bool_], at: tuple[int, int] = (0, 0), lines: int | None = None) -> str:
    """Encode a mask, bool (lines, pixels), as text; "" for an empty mask.

    With `at` (line, pixel) and `lines`, `mask` is a box of a larger mask with `lines` lines. The
    larger mask is never built, because most of a frame is defect-free.
    """
    total = mask.shape[0] if lines is None else lines
    padded = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    padded[:, 1:-1] = mask.T
    change = np.diff(padded, axis=1)
    (column, start), (_, end) = np.nonzero(change == 1), np.nonzero(change == -1)
    first = (at[1] + column) * total + at[0] + start
    last = first + end - start
    # A run that ends at the bottom of a column continues at the top of the next.
    joined = first[1:] == last[:-1]
    first, last = first[np.r_[True, ~joined][: first.size]], last[np.r_[~joined, True][: last.size]]
    pairs = zip((first + 1).tolist(), (last - first).tolist(), strict=True)
    return " ".join(f"{s} {n}" for s, n in pairs)


def decode(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode text to a mask, bool of `shape` (lines, pixels); "" is an empty mask.

    Raises ValueError if the text is invalid or does not fit the shape.
    """
    numbers = _numbers(text.split())
    if numbers.size % 2:
        raise ValueError(f"RLE: {numbers.size} numbers, but runs come in pairs")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    size = shape[0] * shape[1]
    if numbers.size and (starts[0] < 0 or (lengths < 1).any()):
        raise ValueError("RLE: starts count from 1 and lengths are at least 1")
    if (lengths > size).any() or (starts > size - lengths).any():
        raise ValueError(f"RLE: a run ends after the last of {size} pixels")
    ends = starts + lengths
    if (starts[1:] < ends[:-1]).any():
        raise ValueError("RLE: runs overlap or are not in order")
    # Neither starts nor ends repeat; where two runs touch, the start and the end cancel out.
    change = np.zeros(size + 1, np.int8)
    change[starts] += 1
    change[ends] -= 1
    covered = np.cumsum(change[:-1], dtype=np.int8).view(np.bool_)
    return covered.reshape(shape, order="F")


def _numbers(words: list[str]) -> NDArray[np.int64]:
    """Parse plain decimal numbers. int() alone would accept 1_000 and digits of other scripts."""
    try:
        if not _PLAIN.issuperset("".join(words)):
            raise ValueError
        return np.array(words, dtype=np.int64)
    except (ValueError, OverflowError):
        wrong = next((w for w in words if not _NUMBER.fullmatch(w)), max(words, key=len))
        raise ValueError(
            f"RLE: not whole numbers separated by spaces: {wrong[:_SHOWN]!r}"
        ) from None
