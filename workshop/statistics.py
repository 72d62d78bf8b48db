"""How sure a figure is: exact intervals of shares, bootstrap intervals of the rest.

Images are drawn anew, never pixels or defects: those of one image stand and fall together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2_000
CONFIDENCE = 0.95
_CHUNK = 100

Floats = NDArray[np.float64]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """k of n with the exact (Clopper-Pearson) two-sided 95 % interval; of nothing: no value."""

    k: int
    n: int
    value: float | None
    low: float
    high: float


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure over n images with its 95 % bootstrap interval; of nothing: no value."""

    n: int
    value: float | None
    low: float | None
    high: float | None


def share(k: int, n: int) -> Share:
    if n == 0:
        return Share(k=0, n=0, value=None, low=0.0, high=1.0)
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="exact")
    return Share(k=k, n=n, value=k / n, low=float(interval.low), high=float(interval.high))


def estimate(rows: Floats, figure: Callable[[Floats], Floats], *, seed: int = 0) -> Estimate:
    """A figure that depends on sums over images.

    `rows` is float64 (images, k), what each image adds; `figure` takes sums (m, k) to values
    (m,), NaN where there is none. The percentile interval of 2,000 resamples of the images.
    """
    n = len(rows)
    if not n:
        return Estimate(n=0, value=None, low=None, high=None)
    rng = np.random.default_rng(seed)
    values = [figure(_drawn(rng, n) @ rows) for _ in range(RESAMPLES // _CHUNK)]
    return summary(n, float(figure(rows.sum(axis=0)[None])[0]), np.concatenate(values))


def _drawn(rng: np.random.Generator, n: int) -> Floats:
    """How often each of n images is in each of a chunk of resamples: (chunk, n)."""
    # Several times faster than rng.multinomial.
    at = rng.integers(0, n, (_CHUNK, n)) + n * np.arange(_CHUNK)[:, None]
    return np.bincount(at.ravel(), minlength=_CHUNK * n).reshape(_CHUNK, n).astype(np.float64)


def mean(values: Sequence[float] | Floats, *, seed: int = 0) -> Estimate:
    """The mean over images, one value each."""
    rows = np.array([values, np.ones(len(values))], np.float64).T
    return estimate(rows, lambda s: np.asarray(s[:, 0] / s[:, 1]), seed=seed)


def summary(n: int, value: float, resampled: Floats) -> Estimate:
    """The percentile interval of figures on resamples; those that are NaN do not count."""
    there = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not there.size:
        return Estimate(n=n, value=None, low=None, high=None)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(there, (tail, 100 - tail))
    return Estimate(n=n, value=value, low=float(low), high=float(high))
