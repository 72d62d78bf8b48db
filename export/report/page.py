"""Report of an export as one HTML page; the meaning of a figure is explained beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from export.float_comparison import ComparisonRow
from export.report.document import ExportReport, GateAcceptance, SegmenterAcceptance
from export.report.pictures import MOST, ImageCard
from export.report.plots import draw
from export.report.speed import FormTiming, Speed
from workshop.report.page import render
from workshop.report.pictures import colour

_LAYERS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class _Line:
    """Row of an artifact in the first table; float Keras has no timing and no comparison row."""

    stage: str
    verdict: GateAcceptance | SegmenterAcceptance
    timing: FormTiming | None
    row: ComparisonRow | None


def html(
    report: ExportReport,
    speed: Speed,
    rows: Sequence[ComparisonRow],
    class_names: Sequence[str],
    flips: Sequence[ImageCard],
    worst: Sequence[ImageCard],
) -> str:
    """Return the page as HTML."""
    timings = {(t.stage, t.artifact): t for t in speed.timings}
    by_row = {(r.stage, r.label): r for r in rows}
    verdicts: Mapping[str, Sequence[GateAcceptance | SegmenterAcceptance]]
    verdicts = {"gate": report.gate, "segmenter": report.segmenter}
    lines = [
        _Line(stage, v, timings.get((stage, v.artifact)), by_row.get((stage, v.artifact)))
        for stage, of_stage in verdicts.items()
        for v in of_stage
    ]
    flipped = {flip.name for v in report.gate for flip in v.flips}
    return render(
        "export.report",
        "report.html.j2",
        r=report,
        speed=speed,
        lines=lines,
        faults=[line for line in lines if line.verdict.fault],
        float_size={s: _largest(lines, s) for s in ("gate", "segmenter")},
        flips=flips,
        flipped=len(flipped),
        most=MOST,
        worst=worst,
        plots=[draw(one) for one in report.outcomes if one.layers],
        layers_shown=_LAYERS_SHOWN,
        legend=[(name, "#" + bytes(colour(k)).hex()) for k, name in enumerate(class_names, 1)],
        size=_size,
        number=_number,
    )


def _largest(lines: Sequence[_Line], stage: str) -> int:
    """Return the reference size, float32, which is the largest form."""
    return max(line.verdict.size_bytes or 0 for line in lines if line.stage == stage)


def _size(size_bytes: int) -> str:
    """Return the size as text: 1,234 kB."""
    return f"{size_bytes / 1000:,.0f} kB"


def _number(value: float) -> str:
    return "no number" if not math.isfinite(value) else f"{value:.4f}"
