"""Evaluation report, as an HTML page and as a table for the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluate.evaluate import ImageView
from training.evaluate.evaluation import Evaluation
from training.evaluate.gallery import GalleryGroup, entry
from training.evaluate.plots import dice_plot, gate_plots
from workshop.report import page
from workshop.report.figure import Plot
from workshop.report.pictures import colour
from workshop.segmentation_metrics import ImageRecord
from workshop.statistics import Estimate, Share

_MOST_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Plots:
    """Plots of a report; `gate` is empty and `dice` None without data for them."""

    gate: tuple[Plot, ...]
    dice: Plot | None

    def files(self) -> dict[str, bytes]:
        """Return each plot as SVG for a light page, by file name."""
        shown = (*self.gate, *(() if self.dice is None else (self.dice,)))
        return {f"{re.sub('[^a-z]+', '-', p.title.lower())}.svg": p.light for p in shown}


def plots(evaluation: Evaluation, records: Sequence[ImageRecord]) -> Plots:
    """Draw the plots that the evaluation has data for."""
    return Plots(_gate_plots(evaluation, records), _dice_plot(evaluation))


def html(
    evaluation: Evaluation,
    drawn: Plots,
    groups: Iterable[GalleryGroup],
    view: Callable[[ImageRecord], ImageView],
) -> str:
    """Render the HTML page.

    Args:
        evaluation: The figures.
        drawn: The plots.
        groups: The images of the gallery.
        view: Gives the pixels of one image; called once for each, so that memory holds one.

    Returns:
        The page, without links to other files.
    """
    names = evaluation.class_names
    return page.render(
        "training.evaluate",
        "report.html.j2",
        e=evaluation,
        gate_plots=drawn.gate,
        dice_plot=drawn.dice,
        groups=[
            (group, [entry(pick, view(pick.record), names) for pick in group.picks])
            for group in groups
            if group.picks
        ],
        legend=[(name, "#" + bytes(colour(k)).hex()) for k, name in enumerate(names, 1)],
    )


def table(evaluation: Evaluation) -> str:
    """Return the main figures as aligned text for a terminal."""
    images = evaluation.images
    lines = [
        evaluation.notice,
        f"{images.data}: {images.judged} images ({images.clean} clean, {images.drawn} drawn, "
        f"{images.not_drawn} defective and not drawn; {images.left_out} left out as seen, "
        f"{len(images.problems)} could not be judged)",
    ]
    lines += [f"  {p.name}: {p.reason}" for p in images.problems[:_MOST_PROBLEMS]]
    gate, segmenter, line = evaluation.gate, evaluation.segmenter, evaluation.line
    if gate is not None:
        rows = {"gate at threshold": [f"{at.threshold:g}" for at in gate.at]}
        rows["  accuracy"] = [_brief(at.accuracy) for at in gate.at]
        rows["  defect recall"] = [_brief(at.defect.recall) for at in gate.at]
        rows["  defect precision"] = [_brief(at.defect.precision) for at in gate.at]
        rows["  clean passed on"] = [
            f"{at.confusion.clean_passed_on} of {images.clean}" for at in gate.at
        ]
        lines += [*_aligned(rows)]
        rows = {"  AUROC": [_brief(gate.auroc)]}
        rows["  average precision"] = [_brief(gate.average_precision)]
        lines += _aligned(rows)
    if segmenter is not None:
        rows = {"segmenter": [""], "  Dice, drawn images": [_brief(segmenter.dice)]}
        rows["  Dice, defect or none"] = [_brief(segmenter.binary_dice)]
        rows["  mean IoU of classes"] = [_brief(segmenter.mean_iou)]
        rows["  class right of found"] = [_brief(segmenter.class_right)]
        rows["  competition's Dice"] = [_brief(segmenter.competition_dice)]
        rows["  of an empty one"] = [_brief(segmenter.empty_dice)]
        lines += _aligned(rows)
    if line:
        names = ["no gate" if one.threshold is None else f"{one.threshold:g}" for one in line]
        rows = {"line at gate threshold": names}
        rows["  defective alerted"] = [_brief(one.recall) for one in line]
        rows["  clean alerted"] = [_brief(one.false_alerts) for one in line]
        rows["  Dice, missed as 0"] = [_brief(one.dice) for one in line]
        rows["  need the segmenter"] = [_brief(one.segmented) for one in line]
        lines += _aligned(rows)
    return "\n".join(line.rstrip() for line in lines)


def _aligned(rows: dict[str, list[str]]) -> list[str]:
    return [f"{name:<24}" + "".join(f"{cell:<24}" for cell in row) for name, row in rows.items()]


def _brief(one: Share | Estimate) -> str:
    if one.value is None:
        return "-"
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _gate_plots(evaluation: Evaluation, records: Sequence[ImageRecord]) -> tuple[Plot, ...]:
    clean = [r.logit for r in records if r.logit is not None and not r.defective]
    defective = [r.logit for r in records if r.logit is not None and r.defective]
    if evaluation.gate is None or not clean or not defective:
        return ()
    return gate_plots(np.array(clean), np.array(defective), evaluation.gate)


def _dice_plot(evaluation: Evaluation) -> Plot | None:
    classes = evaluation.segmenter.classes if evaluation.segmenter else ()
    if all(one.dice.value is None for one in classes):
        return None
    return dice_plot([one.name for one in classes], [one.dice for one in classes])
