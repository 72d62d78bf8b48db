"""Uncertainty of figures: exact intervals of shares, bootstrap intervals of the others.

Images are resampled, never pixels or defects: those of one image are not independent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 2_000
CONFIDENCE = 0.95
_BATCH_VALUES = 1 << 21
"""Values drawn at a time: 16 MB."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """k of n with the exact (Clopper-Pearson) two-sided 95 % interval; no value if n is 0."""

    k: int
    n: int
    value: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Figure over n images with its 95 % bootstrap interval; no value if n is 0."""

    n: int
    value: float | None
    low: float | None
    high: float | None


def share(k: int, n: int) -> Share:
    """Return the share k of n with its interval."""
    if n == 0:
        return Share(k=0, n=0, value=None, low=0.0, high=1.0)
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="exact")
    return Share(k=k, n=n, value=k / n, low=float(interval.low), high=float(interval.high))


def estimate(rows: Floats, figure: Callable[[Floats], Floats], *, seed: int = 0) -> Estimate:
    """Estimate a figure that depends on sums over images, with its bootstrap interval.

    Args:
        rows: float64 (images, k), each image's contribution to the sums.
        figure: Maps sums (m, k) to values (m,), NaN where there is none.
        seed: Seed of the resamples.
    """
    n = len(rows)
    if not n:
        return Estimate(n=0, value=None, low=None, high=None)
    value = float(figure(rows.sum(axis=0)[None])[0])
    if n == 1:  # every resample is that image; scipy refuses it
        return summary(n, value, np.array([value]))

    def drawn(images: NDArray[np.int64], axis: int) -> Floats:  # noqa: ARG001 - scipy's signature
        sums = rows[images].sum(axis=-2)
        return figure(sums.reshape(-1, sums.shape[-1])).reshape(sums.shape[:-1])

    with warnings.catch_warnings():
        # Raised for resamples without a value, which `summary` leaves out.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        resampled = stats.bootstrap(
            (np.arange(n),),
            drawn,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH_VALUES // rows.size),
            vectorized=True,
            method="percentile",
            random_state=np.random.default_rng(seed),
        ).bootstrap_distribution
    return summary(n, value, resampled)


def mean(values: Sequence[float] | Floats, *, seed: int = 0) -> Estimate:
    """Estimate the mean over images, one value each."""
    n = len(values)
    return estimate(
        np.asarray(values, np.float64).reshape(n, 1), lambda s: np.asarray(s[:, 0] / n), seed=seed
    )


def summary(n: int, value: float, resampled: Floats) -> Estimate:
    """Return the percentile interval of figures on resamples; NaN values are left out."""
    there = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not there.size:
        return Estimate(n=n, value=None, low=None, high=None)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(there, (tail, 100 - tail))
    return Estimate(n=n, value=value, low=float(low), high=float(high))
