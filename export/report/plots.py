"""Plots of the report: the layers with the largest int8 error, one plot for each int8 form."""

from __future__ import annotations

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from export.acceptance.fallback import FormOutcome
from export.conversion.layer_errors import CLEAN_DB
from workshop.report.figure import Plot, PlotStyle, plot

_SHOWN = 20
_LONGEST = 34


def draw(one: FormOutcome) -> Plot:
    """Plot the signal-to-noise ratio of the worst layers of a form that was wanted in int8."""
    shown = one.layers[:_SHOWN]
    kept = set(one.kept_float)

    def dots(axes: Axes, look: PlotStyle) -> None:
        for row, x in enumerate(shown):
            colour = look.defect if x.name in kept else look.clean
            axes.plot([0, x.own_db], [row, row], color=colour, linewidth=3)
            axes.plot([x.own_db], [row], "o", color=colour, markersize=6)
        known = [(x.total_db, row) for row, x in enumerate(shown) if x.total_db is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], "|", color=look.ink, markersize=9)
        axes.set_yticks(range(len(shown)), [_short(x.name) for x in shown], fontsize=8)
        axes.set(xlim=(-4, CLEAN_DB + 4), ylim=(len(shown) - 0.4, -0.6))
        axes.set(xlabel="signal to noise, dB (right is better)")
        marks: list[Artist] = [
            Patch(color=look.clean, label="int8"),
            Patch(color=look.defect, label="float"),
        ]
        marks.append(Line2D([], [], color=look.ink, marker="|", linestyle="", label="so far"))
        axes.legend(
            handles=marks if kept else [marks[0], marks[2]],
            frameon=False,
            labelcolor=look.ink,
            fontsize=8,
        )

    return plot(
        f"{one.stage}, {one.wanted}",
        f"The {len(shown)} worst of {len(one.layers)} layers. Dots: the noise that int8 adds in "
        "this layer, channel by channel; orange: left in float. Marks: of the layer's output, "
        "with the noise of all before it.",
        dots,
        height_in=max(1.8, 0.9 + 0.21 * len(shown)),
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :]
