"""Duplicates and near-duplicates: images of the same piece of material.

In other light, recompressed, shifted by up to a quarter frame, in quarter turns, mirrored or partly
covered; not merely similar textures. A pair split between training and test inflates the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from edge_agent.frame import Image
from workshop.datasets import DataSet
from workshop.progress import counted, each

# Thresholds of the two steps. The print of an image is the low part of the spectrum of its fine
# relief at 128 x 128 px: a band-pass, each place divided by the strength of the relief around it,
# so that neither light nor a single bright scratch dominates.
#
# 1. Hash: magnitudes do not change with a shift. Each bin minus its neighbourhood gives the
# perceptual hash; its correlation over all pairs, in the four orientations that magnitudes can
# distinguish, is a matrix product. Pairs from `_ALIKE` on are checked further.
#
# 2. Peak of the phase correlation (Kuglin and Hines, 1975), 1 for an image and its shifted copy.
# All bins have equal weight: a stripe pattern, which is a few bins, does not match every other one.
# Pairs from `_SAME` on are near-duplicates.
#
# Both were chosen by viewing pairs from the whole range: 384,126 pairs of the 877 magnetic tiles
# (the file names show that a tile occurs at several exposures), 404,550 of the 900 steel images of
# NEU (which has copies turned by 90 and 180 degrees, overlapping cuts and collages) and those of
# 575 frames of the simulated strip, which has none. All viewed pairs from 0.25 on were true, those
# below 0.20 were not, and the strip's highest was 0.22. Not found: other scales, other angles,
# overlaps below three quarters a side, weak relief. 15,000 images take about a minute, somewhat
# more if all have one grain.
_ALIKE, _SAME = 0.20, 0.25
_SIDE = 128
_FINE_SIGMA, _COARSE_SIGMA = 0.8, 4.0
_NOISE = 1.0
"""Grey levels; relief weaker than this is noise and stays small in the print."""
_BINS = 24
"""Frequencies of the print, in periods a side: -24 to 24 along, 0 to 24 across."""
_NEIGHBOURHOOD_SIGMA = 2.0
_FLAT = 1e-3
"""Norm below which an image has no relief and matches no other."""
_SURFACE = 64
_MAX_SHIFT = _SURFACE // 4
_BLOCK, _BATCH = 1024, 256

Print = NDArray[np.complex64]
"""complex64 (49, 25): half of the spectrum, frequency 0 at [24, 0]; the rest mirrors it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images by index, `first` < `second`, and their likeness: 0.25 to 1."""

    first: int
    second: int
    likeness: float


def fingerprint(image: Image) -> Print:
    """Return the print of an image of any size, grey or RGB."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    relief = _blurred(small, _FINE_SIGMA) - _blurred(small, _COARSE_SIGMA)
    relief = relief / np.sqrt(_blurred(relief * relief, _COARSE_SIGMA) + _NOISE**2)
    window = np.hanning(_SIDE).astype(np.float32)
    spectrum = np.fft.fftshift(fft.rfft2(relief * (window[:, None] * window)), axes=0)
    middle = _SIDE // 2
    return np.asarray(spectrum[middle - _BINS : middle + _BINS + 1, : _BINS + 1], np.complex64)


def near_duplicates(prints: NDArray[np.complex64], *, progress: bool = False) -> tuple[Pair, ...]:
    """Return the near-duplicates among prints, complex64 (n, 49, 25).

    A pair is left out if others link its images already. The pairs therefore suffice to form the
    groups: a thousand images of one thing give 999 pairs.
    """
    groups = _Groups(len(prints))
    pairs = []
    for first, second, turn in _candidates(prints, groups, progress):
        peaks = _peaks(prints[first], _turned(prints[second], turn))
        for i, j, peak in zip(first.tolist(), second.tolist(), peaks.tolist(), strict=True):
            if peak >= _SAME and groups.join(i, j):
                pairs.append(Pair(i, j, round(peak, 4)))
    return tuple(pairs)


def group_numbers(
    count: int, pairs: tuple[Pair, ...], digests: tuple[str | None, ...]
) -> NDArray[np.int64]:
    """Return the group of each of `count` images, int64, from 0 in order of first appearance.

    Images of equal digest are in one group; an image without a digest has None.
    """
    groups = _Groups(count)
    for pair in pairs:
        groups.join(pair.first, pair.second)
    of: dict[str, int] = {}
    for index, digest in enumerate(digests):
        if digest is not None:
            groups.join(of.setdefault(digest, index), index)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(groups.root(i), len(numbers)) for i in range(count)])


def groups(dataset: DataSet, *, progress: bool = True) -> NDArray[np.int64]:
    """Return the group of each sample, int64 (n,); each image is read once and takes 10 kB."""
    count = len(dataset.samples)
    prints = empty_prints(count)
    digests = []
    for index in each(range(count), "reading images", "image", total=count, shown=progress):
        prints[index] = fingerprint(dataset.image(index))
        digests.append(dataset.digest(index))
    return group_numbers(count, near_duplicates(prints, progress=progress), tuple(digests))


def empty_prints(count: int) -> NDArray[np.complex64]:
    """Return an array for prints; one left empty matches no other."""
    return np.zeros((count, 2 * _BINS + 1, _BINS + 1), np.complex64)


class _Groups:
    """Disjoint sets of image indices."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, one: int, other: int) -> bool:
        """Join two sets; return True if they were separate."""
        one, other = self.root(one), self.root(other)
        self._parent[max(one, other)] = min(one, other)
        return one != other

    def roots(self) -> NDArray[np.int64]:
        return np.array([self.root(i) for i in range(len(self._parent))], np.int64)


def _candidates(
    prints: NDArray[np.complex64], groups: _Groups, progress: bool
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], int]]:
    """Yield batches of pairs with similar hashes, not yet in one group, and the orientation.

    The matrix of all pairs is computed block by block, the most similar pairs of a block first.
    """
    plain = _hashes(prints)
    starts = range(0, len(prints), _BLOCK)
    blocks = [(row, column) for row in starts for column in starts if row <= column]
    with counted(4 * len(blocks), "comparing images", "block", shown=progress) as bar:
        for turn in range(4):
            turned = plain if turn == 0 else _hashes(_turned(prints, turn))
            for row, column in blocks:
                like = plain[row : row + _BLOCK] @ turned[column : column + _BLOCK].T
                first, second = np.nonzero(like >= _ALIKE)
                order = np.argsort(-like[first, second], kind="stable")
                first, second = first[order] + row, second[order] + column
                keep = first < second
                for batch in _apart(first[keep], second[keep], groups):
                    yield (*batch, turn)
                bar.update()


def _apart(
    first: NDArray[np.intp], second: NDArray[np.intp], groups: _Groups
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    while first.size:
        roots = groups.roots()
        apart = roots[first] != roots[second]
        first, second = first[apart], second[apart]
        yield first[:_BATCH], second[:_BATCH]
        first, second = first[_BATCH:], second[_BATCH:]


def _hashes(prints: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Return the perceptual hashes as unit vectors, float32 (n, 1225)."""
    hashes = np.empty((len(prints), prints[0].size if len(prints) else 0), np.float32)
    for one, out in zip(prints, hashes, strict=True):
        # The whole spectrum, so that the neighbourhood of the first column is not cut off.
        logs = np.log1p(np.abs(_whole(one[None])[0]))
        flat = (logs - _blurred(logs, _NEIGHBOURHOOD_SIGMA))[:, _BINS:].ravel()
        flat = flat - flat.mean()
        norm = float(np.linalg.norm(flat))
        out[:] = flat / norm if norm > _FLAT else 0.0
    return hashes


def _whole(prints: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return the whole spectra (n, 49, 49), frequency 0 in the middle."""
    return np.concatenate([prints[:, ::-1, :0:-1].conj(), prints], axis=2)


def _turned(prints: NDArray[np.complex64], turn: int) -> NDArray[np.complex64]:
    """Return the prints of the images as they are (0), mirrored (1), transposed (2), both (3).

    They are exact but for a shift and a half turn; the half turn is the complex conjugate.
    """
    if turn in (2, 3):
        prints = _whole(prints).transpose(0, 2, 1)[:, :, _BINS:]
    return prints[:, ::-1] if turn in (1, 3) else prints


def _peaks(one: NDArray[np.complex64], other: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Return the peak of the phase correlation of pairs of prints (n, 49, 25).

    Shifts up to a quarter are covered; the better of upright and upside down is taken.
    """
    a, b = _phases(one), _phases(other)
    shifts = np.arange(-_MAX_SHIFT, _MAX_SHIFT + 1)
    best = np.zeros(len(a), np.float32)
    for turned in (b, b.conj()):
        product = a * turned.conj()
        padded = np.zeros((len(a), _SURFACE, _SURFACE // 2 + 1), np.complex64)
        padded[:, : _BINS + 1, : _BINS + 1] = product[:, _BINS:]
        padded[:, -_BINS:, : _BINS + 1] = product[:, :_BINS]
        surface = fft.irfft2(padded, s=(_SURFACE, _SURFACE))
        surface *= _SURFACE**2 / (2 * _BINS + 1) ** 2
        best = np.maximum(best, surface[:, shifts[:, None], shifts].max(axis=(1, 2)))
    return best


def _phases(prints: NDArray[np.complex64]) -> NDArray[np.complex64]:
    return np.asarray(prints / np.maximum(np.abs(prints), np.float32(1e-6)), np.complex64)


def _blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
