"""Final figures of each artifact, on images that had no part in making it: `export.json`.

Each artifact's threshold is chosen on the threshold set and counted on the test set; nothing
changes after that. The file holds no time and no path: the same input gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from edge_agent.files import encode_json
from edge_agent.version import VERSION
from export.acceptance import criteria
from export.acceptance.criteria import Limits
from export.acceptance.fallback import FormOutcome
from export.acceptance.scoring import Scores
from workshop.statistics import Estimate, Share, mean, share
from workshop.thresholds import choose


class FlippedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Image on which artifact and float network decide differently, each at its threshold."""

    name: str
    defective: bool
    float_suspect: bool
    float_logit: float
    logit: float


class WorstImage(msgspec.Struct, frozen=True, kw_only=True):
    """Image with the largest drop in Dice from the float network to the artifact."""

    name: str
    float_dice: float
    dice: float


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Difference from float Keras over images: gate logit, or mean probability of an image."""

    largest: float
    p99: float


class JudgedForm(NamedTuple):
    """Artifact under acceptance by its label, or float Keras, which has no file."""

    label: str
    size_bytes: int | None = None


class GateAcceptance(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a gate on the test set.

    `fault` is that of `criteria.gate_fault`; "" is none. `size_bytes` is None for float Keras.
    """

    artifact: str
    size_bytes: int | None
    threshold_logit: float
    missed: Share
    false_alarms: Share
    flips: tuple[FlippedDecision, ...]
    difference: Difference
    fault: str


class SegmenterAcceptance(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a segmenter on the drawn defects of the test set.

    `drop` is the float network's Dice minus this one's, image by image; its interval is a bootstrap
    over images. `worst` is None if no image has a lower Dice than with the float network.
    """

    artifact: str
    size_bytes: int | None
    dice: Estimate
    drop: Estimate
    worst: WorstImage | None
    difference: Difference
    fault: str


class SetCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Number of images and of defective images in one set."""

    part: str
    images: int
    defective: int


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `export.json`; in `gate` and `segmenter` float Keras comes first."""

    schema_version: Literal[1] = 1
    tool: str = f"linegate {VERSION}"
    notice: str
    limits: Limits
    sets: tuple[SetCounts, ...]
    sets_sha256: str
    outcomes: tuple[FormOutcome, ...]
    gate: tuple[GateAcceptance, ...]
    segmenter: tuple[SegmenterAcceptance, ...]


def thresholds(scores: Sequence[Scores], limits: Limits) -> tuple[float, ...]:
    """Return each gate's threshold logit from the threshold set; six digits, as in the manifest."""
    return tuple(round(choose(s.values, s.defective, limits.miss_rate), 6) for s in scores)


def gates(
    subjects: Sequence[JudgedForm], chosen: Sequence[float], test: Sequence[Scores], limits: Limits
) -> tuple[GateAcceptance, ...]:
    """Return the figures of each gate; the first is float Keras, the reference of the others."""
    bad = test[0].defective
    # A score that is not a number is suspect, as on the line.
    suspect = [~(s.values < t) for s, t in zip(test, chosen, strict=True)]
    return tuple(
        GateAcceptance(
            artifact=one.label,
            size_bytes=one.size_bytes,
            threshold_logit=threshold,
            missed=share(int((bad & ~found).sum()), int(bad.sum())),
            false_alarms=share(int((~bad & found).sum()), int((~bad).sum())),
            flips=tuple(
                FlippedDecision(
                    name=scores.names[i],
                    defective=bool(bad[i]),
                    float_suspect=bool(suspect[0][i]),
                    float_logit=round(float(test[0].values[i]), 6),
                    logit=round(float(scores.values[i]), 6),
                )
                for i in np.flatnonzero(found != suspect[0])
            ),
            difference=_difference(scores),
            fault=criteria.gate_fault(scores.names, bad, suspect[0], found, limits),
        )
        for one, threshold, scores, found in zip(subjects, chosen, test, suspect, strict=True)
    )


def segmenters(
    subjects: Sequence[JudgedForm], test: Sequence[Scores], limits: Limits
) -> tuple[SegmenterAcceptance, ...]:
    """Return the figures of each segmenter; an image without a number counts 0.

    The first is float Keras, the reference of the others.
    """
    reference = test[0]
    return tuple(
        SegmenterAcceptance(
            artifact=one.label,
            size_bytes=one.size_bytes,
            dice=mean(np.nan_to_num(scores.values, nan=0.0)),
            drop=mean(reference.values - np.nan_to_num(scores.values, nan=0.0)),
            worst=_worst(reference, scores),
            difference=_difference(scores),
            fault=criteria.fault("segmenter", reference, scores, limits),
        )
        for one, scores in zip(subjects, test, strict=True)
    )


def _worst(reference: Scores, scores: Scores) -> WorstImage | None:
    values = np.nan_to_num(scores.values, nan=0.0)
    i = int((reference.values - values).argmax())
    before, after = (round(float(v[i]), 6) for v in (reference.values, values))
    return (
        WorstImage(name=scores.names[i], float_dice=before, dice=after) if after < before else None
    )


def _difference(scores: Scores) -> Difference:
    finite = scores.differences[np.isfinite(scores.differences)]
    if finite.size < scores.differences.size:
        return Difference(largest=math.inf, p99=math.inf)
    return Difference(
        largest=round(float(finite.max()), 6), p99=round(float(np.percentile(finite, 99)), 6)
    )


def encode(report: ExportReport) -> bytes:
    """Return the bytes of `export.json`."""
    return encode_json(report)


def table(report: ExportReport) -> str:
    """Return the report as text for a terminal."""
    counts = ", ".join(f"{s.part} {s.images} ({s.defective} defective)" for s in report.sets)
    lines = [report.notice, f"sets: {counts}", ""]
    lines += _outcomes(report.outcomes)
    lines += [
        f"{'gate, test set':<20} {'threshold':>9} {'missed':>9} {'false al.':>9} {'flipped':>7} "
        f"{'max diff':>8} {'p99':>7}"
    ]
    lines += [
        f"{v.artifact:<20} {v.threshold_logit:>+9.3f} {_of(v.missed):>9} {_of(v.false_alarms):>9} "
        f"{len(v.flips):>7} {v.difference.largest:>8.4f} {v.difference.p99:>7.4f}" + _fault(v.fault)
        for v in report.gate
    ]
    lines += ["", f"{'segmenter, test set':<20} {'Dice':>9} {'drop and 95 % interval':>28}"]
    lines += [
        f"{v.artifact:<20} {v.dice.value or 0:>9.4f} "
        f"{f'{v.drop.value:+.4f} [{v.drop.low:+.4f}, {v.drop.high:+.4f}]':>28}" + _fault(v.fault)
        for v in report.segmenter
    ]
    return "\n".join(lines)


def _outcomes(outcomes: Sequence[FormOutcome]) -> list[str]:
    lines = [
        f"{o.stage} {o.wanted}: {o.became if o.became != o.wanted else 'mixed'}: {o.note}"
        for o in outcomes
        if o.note
    ]
    return [*lines, ""] if lines else []


def _fault(fault: str) -> str:
    return f"  beyond the limits: {fault}" if fault else ""


def _of(one: Share) -> str:
    return f"{one.k}/{one.n}"
