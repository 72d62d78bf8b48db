"""Plots of the evaluation report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from sklearn import metrics

from workshop.gate_metrics import GateFigures, Overkill, logit
from workshop.report.figure import Plot, PlotStyle, plot
from workshop.statistics import Estimate, Floats

_MIDDLE = 0.5


def gate_plots(clean: Floats, defective: Floats, figures: GateFigures) -> tuple[Plot, ...]:
    """Plot ROC, precision and recall, scores, and overkill.

    Args:
        clean: Logits of the clean images, at least one.
        defective: Logits of the defective images, at least one.
        figures: Figures of the gate; their thresholds are marked.

    Returns:
        The four plots.
    """
    truth = np.r_[np.zeros(len(clean)), np.ones(len(defective))]
    scores = np.r_[clean, defective]
    fpr, tpr, _ = metrics.roc_curve(truth, scores)
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    places = [
        (
            at.threshold,
            at.clean.recall.value,
            at.defect.recall.value,
            at.defect.precision.value,
        )
        for at in figures.at
    ]

    def roc(axes: Axes, style: PlotStyle) -> None:
        axes.plot([0, 1], [0, 1], color=style.grid, linestyle="--")
        axes.plot(fpr, tpr, color=style.clean)
        marks = [(1 - c, d, t) for t, c, d, _ in places if c is not None and d is not None]
        _marks(axes, style, marks)
        axes.set(xlabel="clean images passed on", ylabel="defective images passed on")

    def pr(axes: Axes, style: PlotStyle) -> None:
        axes.axhline(float(truth.mean()), color=style.grid, linestyle="--")
        axes.plot(recall, precision, color=style.clean, drawstyle="steps-pre")
        marks = [(d, p, t) for t, _, d, p in places if d is not None and p is not None]
        _marks(axes, style, marks)
        axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.05))

    def histogram(axes: Axes, style: PlotStyle) -> None:
        # Without the limits, a few outliers would put all other scores into one bar.
        low, high = np.percentile(scores, (0.5, 99.5))
        bins = np.linspace(min(low, -6), max(high, 2), 41)
        for values, colour, name in (
            (clean, style.clean, "clean"),
            (defective, style.defect, "defective"),
        ):
            inside = np.clip(values, bins[0], bins[-1])
            axes.hist(inside, bins.tolist(), color=colour, alpha=0.65, label=name)
        for at in figures.at:
            axes.axvline(logit(at.threshold), color=style.ink, linewidth=1, linestyle=":")
        axes.set(xlabel="gate's logit", ylabel="images")
        axes.legend(frameon=False, labelcolor=style.ink)

    def overkill(axes: Axes, style: PlotStyle) -> None:
        axes.plot(1 - tpr, fpr, color=style.clean, drawstyle="steps-pre")
        shown = [o for o in figures.overkill if o.overkill.value is not None]
        _whiskers(axes, style, [_allowed(o, len(defective)) for o in shown], _values(shown))
        axes.set(xlabel="defective images missed", ylabel="clean images passed on")
        axes.set(xlim=(-0.005, 0.105), ylim=(-0.02, 1.02))

    return (
        plot(
            "ROC",
            f"Defective against clean images passed on, over all thresholds; dots mark the "
            f"thresholds of this report. AUROC {_shown(figures.auroc)} is the probability that a "
            "defective image scores higher than a clean one; the dashed line is chance.",
            roc,
        ),
        plot(
            "Precision and recall",
            f"Precision is the defective share of the images passed on. Average precision "
            f"{_shown(figures.average_precision)}; the dashed line is chance.",
            pr,
        ),
        plot(
            "Scores",
            "The gate's scores of clean and of defective images; dotted lines: thresholds of this "
            "report. Scores outside the range are counted at its ends.",
            histogram,
        ),
        plot(
            "Overkill",
            "Clean images passed on, against defective images missed, over all thresholds. Each "
            "threshold is chosen on these images: it does not estimate the miss rate on others.",
            overkill,
        ),
    )


def dice_plot(names: Sequence[str], values: Sequence[Estimate]) -> Plot:
    """Plot the Dice per class with intervals; at least one has a value."""

    def draw(axes: Axes, style: PlotStyle) -> None:
        for row, one in enumerate(values):
            if one.value is not None and one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [row, row], color=style.defect, linewidth=2)
                axes.plot([one.value], [row], "o", color=style.defect)
        axes.set(xlabel="Dice", xlim=(-0.02, 1.02), ylim=(len(values) - 0.5, -0.5))
        labels = [f"{_short(n)} ({one.n})" for n, one in zip(names, values, strict=True)]
        axes.set_yticks(range(len(values)), labels)

    text = (
        "Mean over the images on which the class is drawn (number in brackets), with the "
        "95 % bootstrap interval."
    )
    return plot("Dice per class", text, draw, height_in=max(1.6, 0.8 + 0.4 * len(values)))


def _marks(axes: Axes, style: PlotStyle, marks: Sequence[tuple[float, float, float]]) -> None:
    """Draw a dot for each (x, y, threshold); thresholds at one position share a label."""
    at: dict[tuple[float, float], list[str]] = {}
    for x, y, threshold in marks:
        at.setdefault((x, y), []).append(f"{threshold:g}")
    for (x, y), names in at.items():
        axes.plot([x], [y], "o", color=style.defect, clip_on=False)
        left = x > _MIDDLE
        axes.annotate(
            ", ".join(names),
            (x, y),
            xytext=(-7 if left else 7, -13),
            textcoords="offset points",
            ha="right" if left else "left",
            color=style.ink,
        )


def _whiskers(axes: Axes, style: PlotStyle, x: Sequence[float], values: Sequence[Estimate]) -> None:
    for at, one in zip(x, values, strict=True):
        if one.value is not None and one.low is not None and one.high is not None:
            axes.plot([at, at], [one.low, one.high], color=style.defect, linewidth=1.5)
            axes.plot([at], [one.value], "o", color=style.defect)


def _allowed(one: Overkill, defective: int) -> float:
    return one.misses_allowed / defective


def _values(shown: Sequence[Overkill]) -> list[Estimate]:
    return [one.overkill for one in shown]


def _shown(one: Estimate) -> str:
    return "unknown" if one.value is None else f"{one.value:.3f}"


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"
