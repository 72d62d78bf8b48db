"""A plot as SVG, for a light and a dark page. Pure; nothing global is touched."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SIZE_IN = (5.0, 3.6)


@dataclass(frozen=True, slots=True)
class Plot:
    """`text` says in words what the picture shows."""

    title: str
    text: str
    light: bytes
    dark: bytes


@dataclass(frozen=True, slots=True)
class PlotStyle:
    ink: str
    grid: str
    clean: str
    defect: str


# Okabe and Ito's blue and orange, told apart by the colour-blind too; lighter on dark.
_LIGHT = PlotStyle(ink="#1f2328", grid="#d5d9de", clean="#0072b2", defect="#d55e00")
_DARK = PlotStyle(ink="#d6dade", grid="#3a4048", clean="#56b4e9", defect="#ff9d4d")


def plot(
    title: str,
    text: str,
    draw: Callable[[Axes, PlotStyle], None],
    height_in: float = _SIZE_IN[1],
) -> Plot:
    """`draw` is called for each look, with axes that have no more than a grid."""
    light, dark = (_svg(draw, look, height_in) for look in (_LIGHT, _DARK))
    return Plot(title, text, light, dark)


def _svg(draw: Callable[[Axes, PlotStyle], None], look: PlotStyle, height_in: float) -> bytes:
    buffer = io.BytesIO()
    look_of = matplotlib.rc_context(
        {
            # The same figures, the same bytes.
            "svg.hashsalt": "linegate",
            # Text stays text: a class name may be in any script, and the browser has the letters.
            "svg.fonttype": "none",
            "font.size": 11,
            "text.color": look.ink,
            "axes.edgecolor": look.grid,
            "axes.labelcolor": look.ink,
            "xtick.color": look.ink,
            "ytick.color": look.ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            # A class name with two dollar signs is a name.
            "text.parse_math": False,
        }
    )
    with look_of, warnings.catch_warnings():
        # Only for the layout, which may be a little out.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure = Figure(figsize=(_SIZE_IN[0], height_in), layout="constrained")
        axes = figure.subplots()
        axes.grid(color=look.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes, look)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
