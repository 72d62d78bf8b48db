"""Figures of the gate from its scores: at a threshold, and over all of them. Pure.

Defective is positive; "passed on" (to the segmenter) means logit >= threshold. Intervals: exact for
shares, otherwise a bootstrap drawn separately for clean and defective images, in equal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from workshop.statistics import RESAMPLES, Estimate, Floats, Share, share, summary

MISS_RATES = (0.0, 0.01, 0.02, 0.05)
_CHUNK = 100


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of images; the correct ones are `clean_stopped` and `defective_passed_on`."""

    clean_stopped: int
    clean_passed_on: int
    defective_stopped: int
    defective_passed_on: int


class ClassScores(msgspec.Struct, frozen=True, kw_only=True):
    """Precision, recall and F1 of one class."""

    precision: Share
    recall: Share
    f1: Estimate


class AtThreshold(msgspec.Struct, frozen=True, kw_only=True):
    """Figures at one threshold, a probability of "defective"; the line compares its logit."""

    threshold: float
    confusion: Confusion
    accuracy: Share
    clean: ClassScores
    defect: ClassScores


class Overkill(msgspec.Struct, frozen=True, kw_only=True):
    """Overkill at a miss rate: the share of clean images passed on.

    It is taken at the highest threshold that misses no more than `misses_allowed` images
    (`miss_rate` of the defective ones, rounded down). The threshold is chosen on these same images:
    the figure rates the ranking of the scores and predicts nothing for others.
    """

    miss_rate: float
    misses_allowed: int
    threshold_logit: float
    overkill: Estimate


class GateFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a gate over all thresholds and at some."""

    auroc: Estimate
    average_precision: Estimate
    overkill: tuple[Overkill, ...]
    at: tuple[AtThreshold, ...]


def logit(probability: float) -> float:
    """Return the logit of a probability in (0, 1)."""
    return math.log(probability / (1 - probability))


def probability(logit: float) -> float:
    """Return the sigmoid of a logit, without overflow."""
    return 0.5 * (1 + math.tanh(logit / 2))


def gate_figures(
    clean: Sequence[float], defective: Sequence[float], thresholds: Sequence[float]
) -> GateFigures:
    """Return the figures of finite logits of clean and defective images.

    `thresholds` are probabilities.
    """
    negative, positive = np.array(clean, np.float64), np.array(defective, np.float64)
    n = len(negative) + len(positive)
    auroc = precision = summary(n, float("nan"), np.zeros(0))
    overkill: tuple[Overkill, ...] = ()
    if len(negative) and len(positive):
        auroc, precision, overkill = _ranked(negative, positive)
    return GateFigures(
        auroc=auroc,
        average_precision=precision,
        overkill=overkill,
        at=tuple(_at(t, negative, positive) for t in thresholds),
    )


def _ranked(negative: Floats, positive: Floats) -> tuple[Estimate, Estimate, tuple[Overkill, ...]]:
    n = len(negative) + len(positive)
    truth = np.r_[np.zeros(len(negative)), np.ones(len(positive))]
    scores = np.r_[negative, positive]
    curves = _resampled(negative, positive)
    auroc = summary(n, float(metrics.roc_auc_score(truth, scores)), curves[0])
    area = float(metrics.average_precision_score(truth, scores))
    overkill = []
    for rate, resampled in zip(MISS_RATES, curves[2:], strict=True):
        allowed = misses_allowed(rate, len(positive))
        threshold = float(np.sort(positive)[allowed])
        value = float((negative >= threshold).mean())
        overkill.append(
            Overkill(
                miss_rate=rate,
                misses_allowed=allowed,
                threshold_logit=threshold,
                overkill=summary(len(negative), value, resampled),
            )
        )
    return auroc, summary(n, area, curves[1]), tuple(overkill)


def misses_allowed(rate: float, defective: int) -> int:
    """Return `rate` of the defective images, rounded down; at least one must be found."""
    # Rounding error: 0.07 * 100 is a little more than 7, 0.29 * 100 a little less than 29.
    return min(math.floor(rate * defective + 1e-9), defective - 1)


def _resampled(negative: Floats, positive: Floats) -> Floats:
    """Return AUROC, average precision and overkills on each resample: (2 + rates, resamples)."""
    rng = np.random.default_rng(0)
    levels = np.unique(np.r_[negative, positive])[::-1]
    parts = [
        curve_figures(_drawn(rng, positive, levels), _drawn(rng, negative, levels))
        for _ in range(RESAMPLES // _CHUNK)
    ]
    return np.concatenate(parts, axis=1)


def _drawn(rng: np.random.Generator, scores: Floats, levels: Floats) -> NDArray[np.int64]:
    """Return the images of each level in resamples of equal size: (chunk, levels)."""
    own, counts = np.unique(-scores, return_counts=True)
    n = len(scores)
    # Images of one level are interchangeable: only their number matters.
    drawn = rng.multinomial(n, counts / n, _CHUNK)
    at = np.searchsorted(-levels, own)
    out = np.zeros((_CHUNK, len(levels)), np.int64)
    out[:, at] = drawn
    return out


def curve_figures(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> Floats:
    """Return the figures (2 + rates, m) of images per score level, highest first, (m, levels).

    AUROC is the share of pairs in the right order (ties half; Mann-Whitney), average precision as
    defined by scikit-learn; then the overkill at each of MISS_RATES.
    """
    hits, alarms = positive.cumsum(axis=1), negative.cumsum(axis=1)
    defective, clean = hits[:, -1], alarms[:, -1]
    auroc = (negative * (hits - 0.5 * positive)).sum(axis=1) / (defective * clean)
    precision = hits / np.maximum(hits + alarms, 1)
    average = (positive * precision).sum(axis=1) / defective
    rows = [auroc, average]
    every = np.arange(len(hits))
    for rate in MISS_RATES:
        least = int(defective[0]) - misses_allowed(rate, int(defective[0]))
        level = (hits >= least).argmax(axis=1)
        rows.append(alarms[every, level] / clean)
    return np.array(rows)


def _at(threshold: float, negative: Floats, positive: Floats) -> AtThreshold:
    least = logit(threshold)
    # As edge_agent.inspection.gate.GateDecision: an equal score is suspect.
    alarms, hits = int((negative >= least).sum()), int((positive >= least).sum())
    clean, defective = len(negative), len(positive)
    stopped, missed = clean - alarms, defective - hits
    rng = np.random.default_rng(0)
    # Distribution of the counts in resamples drawn separately for each side.
    some_alarms = rng.binomial(clean, alarms / max(clean, 1), RESAMPLES)
    some_hits = rng.binomial(defective, hits / max(defective, 1), RESAMPLES)
    n = clean + defective
    return AtThreshold(
        threshold=threshold,
        confusion=Confusion(
            clean_stopped=stopped,
            clean_passed_on=alarms,
            defective_stopped=missed,
            defective_passed_on=hits,
        ),
        accuracy=share(stopped + hits, n),
        clean=ClassScores(
            precision=share(stopped, stopped + missed),
            recall=share(stopped, clean),
            f1=summary(
                n,
                float(_f1(np.array(stopped), np.array(alarms + missed))),
                _f1(clean - some_alarms, some_alarms + defective - some_hits),
            ),
        ),
        defect=ClassScores(
            precision=share(hits, hits + alarms),
            recall=share(hits, defective),
            f1=summary(
                n,
                float(_f1(np.array(hits), np.array(alarms + missed))),
                _f1(some_hits, some_alarms + defective - some_hits),
            ),
        ),
    )


def _f1(right: NDArray[np.int64], wrong: NDArray[np.int64]) -> Floats:
    """Return 2 TP / (2 TP + FP + FN); NaN where all three are 0."""
    total = 2 * right + wrong
    return np.where(total > 0, 2 * right / np.maximum(total, 1), np.nan)
