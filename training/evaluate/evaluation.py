"""What is told of trained models in the end: `evaluation.json`. Pure."""

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
    name: str
    reason: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`knows_seen`: its card lists the images it was trained and chosen on."""

    file: str
    sha256: str
    knows_seen: bool


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """`judged` = `clean` + `drawn` + `not_drawn` (defective, and nobody drew it). `seen` of the
    judged were in a model's training or validation; `left_out` for that reason."""

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
    """`evaluation.json`. Thresholds are probabilities; `line` holds each of them, the least
    first, and the segmenter without a gate last (threshold null)."""

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
    """`models` by stage, "gate" and "segmenter" or one of them; `thresholds` ascending."""
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


def _at_threshold(records: Sequence[ImageRecord], place: int, threshold: float) -> LineFigures:
    least = logit(threshold)
    return line_figures(
        records,
        threshold,
        lambda r: r.logit is not None and r.logit >= least,
        lambda r: r.line[place],
    )


def _gate(records: Sequence[ImageRecord], thresholds: Sequence[float]) -> GateFigures:
    scores = [(r.defective, r.logit) for r in records if r.logit is not None]
    return gate_figures(
        [score for defective, score in scores if not defective],
        [score for defective, score in scores if defective],
        thresholds,
    )


def notice(images: Images, models: dict[str, Model]) -> str:
    """The first line of every report: what these images were to the models."""
    silent = [name for name, model in models.items() if not model.knows_seen]
    if images.seen:
        return (
            f"Not to be reported: {images.seen} of {images.judged} images were seen in training or "
            "validation. These figures are too good."
        )
    if silent:
        return (
            f"Whether the images were seen in training is not known: no card in the "
            f"{' and the '.join(silent)}. If they were, these figures are too good."
        )
    left = f"; {images.left_out} seen ones were left out" if images.left_out else ""
    return f"All {images.judged} images are new to the models{left}."
