"""Figures of an evaluation: the content of `evaluation.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from edge_agent.bundle.manifest import RegionRule
from edge_agent.version import VERSION
from workshop.gate_metrics import GateFigures, gate_figures, logit
from workshop.segmentation_metrics import (
    ImageRecord,
    LineFigures,
    SegmenterFigures,
    line_figures,
    segmenter_figures,
)

Part = Literal["unseen", "all", "train", "validation", "test"]
SEED_THRESHOLDS = (0.01, 0.5)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Image that could not be evaluated, with the error message."""

    name: str
    reason: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluated model.

    `knows_seen` is true if its card lists the images of its training and validation.
    """

    file: str
    sha256: str
    knows_seen: bool


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of images.

    `judged` images were evaluated: `clean`, `drawn` (defective, with a mask) and `not_drawn`
    (defective, without a mask). `seen` of them were used in training or validation of a model;
    `left_out` were excluded for that reason.
    """

    data: str
    part: Part
    judged: int
    clean: int
    drawn: int
    not_drawn: int
    seen: int
    left_out: int
    problems: tuple[Problem, ...]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `evaluation.json`.

    Thresholds are probabilities. `line` has the figures at each of them, in ascending order, then
    those of the segmenter without a gate (threshold null).
    """

    schema_version: Literal[1] = 1
    notice: str
    tool: str
    class_names: tuple[str, ...]
    images: Images
    models: dict[str, Model]
    regions: RegionRule
    gate: GateFigures | None
    segmenter: SegmenterFigures | None
    line: tuple[LineFigures, ...]


def evaluation(
    images: Images,
    models: dict[str, Model],
    class_names: tuple[str, ...],
    rule: RegionRule,
    thresholds: Sequence[float],
    records: Sequence[ImageRecord],
) -> Evaluation:
    """Compute all figures of an evaluation.

    Args:
        images: Counts of images.
        models: Models by stage: "gate", "segmenter" or both.
        class_names: Names of the defect classes, 1 first.
        rule: Rule for regions.
        thresholds: Gate thresholds as probabilities, ascending.
        records: Records of the evaluated images.

    Returns:
        The content of `evaluation.json`.
    """
    line: list[LineFigures] = []
    if "segmenter" in models:
        if "gate" in models:
            line = [_at_threshold(records, i, t) for i, t in enumerate(thresholds)]
        line.append(line_figures(records, None, lambda _: True, lambda r: r.regions))
    return Evaluation(
        notice=notice(images, models),
        tool=f"linegate {VERSION}",
        class_names=class_names,
        images=images,
        models=models,
        regions=rule,
        gate=_gate(records, thresholds) if "gate" in models else None,
        segmenter=segmenter_figures(records, class_names) if "segmenter" in models else None,
        line=tuple(line),
    )


def _at_threshold(records: Sequence[ImageRecord], index: int, threshold: float) -> LineFigures:
    lowest = logit(threshold)
    return line_figures(
        records,
        threshold,
        lambda r: r.logit is not None and r.logit >= lowest,
        lambda r: r.line[index],
    )


def _gate(records: Sequence[ImageRecord], thresholds: Sequence[float]) -> GateFigures:
    scores = [(r.defective, r.logit) for r in records if r.logit is not None]
    return gate_figures(
        [score for defective, score in scores if not defective],
        [score for defective, score in scores if defective],
        thresholds,
    )


def notice(images: Images, models: dict[str, Model]) -> str:
    """Return the first line of every report, on the use of these images in training."""
    unknown = [name for name, model in models.items() if not model.knows_seen]
    if images.seen:
        return (
            f"Do not report: {images.seen} of {images.judged} images were used in training or "
            "validation. These figures are too good."
        )
    if unknown:
        return (
            f"It is unknown if the images were used in training: no card in the "
            f"{' and the '.join(unknown)}. If they were, these figures are too good."
        )
    left = f"; {images.left_out} seen ones were left out" if images.left_out else ""
    return f"All {images.judged} images are new to the models{left}."
