"""Run-length masks as Kaggle defines them: column-major, counted from 1, "start length ..."."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def encode(mask: NDArray[np.bool_]) -> str:
    """Mask, bool (lines, pixels), to text; "" for an empty mask."""
    flat = np.concatenate(([False], mask.ravel(order="F"), [False]))
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    return " ".join(f"{s} {e - s}" for s, e in zip(starts.tolist(), ends.tolist(), strict=True))


def decode(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Text to mask, bool of `shape` (lines, pixels). ValueError says what does not fit."""
    try:
        numbers = np.array([int(word) for word in text.split()], dtype=np.int64)
    except (ValueError, OverflowError):
        raise ValueError("RLE: not whole numbers separated by spaces") from None
    if numbers.size % 2:
        raise ValueError(f"RLE: {numbers.size} numbers, but runs come in pairs")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    size = shape[0] * shape[1]
    if numbers.size and (starts[0] < 0 or (lengths < 1).any()):
        raise ValueError("RLE: starts count from 1 and lengths are at least 1")
    if (lengths > size).any() or (starts > size - lengths).any():
        raise ValueError(f"RLE: a run ends after the last of {size} pixels")
    if (starts[1:] < (starts + lengths)[:-1]).any():
        raise ValueError("RLE: runs overlap or are not in order")
    change = np.zeros(size + 1, np.int8)
    change[starts] += 1
    np.subtract.at(change, starts + lengths, 1)
    covered: NDArray[np.bool_] = np.cumsum(change[:-1]) > 0
    return covered.reshape(shape, order="F")
