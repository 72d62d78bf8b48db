"""Plots as SVG, for a light and a dark page. Pure; no global state is changed."""

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
    """Plot in both colour schemes; `text` describes it in words."""

    title: str
    text: str
    light: bytes
    dark: bytes


@dataclass(frozen=True, slots=True)
class PlotStyle:
    """Colours of one scheme, as hex strings."""

    ink: str
    grid: str
    clean: str
    defect: str


# Okabe and Ito's blue and orange, which the colour-blind can distinguish; lighter on dark.
_LIGHT = PlotStyle(ink="#1f2328", grid="#d5d9de", clean="#0072b2", defect="#d55e00")
_DARK = PlotStyle(ink="#d6dade", grid="#3a4048", clean="#56b4e9", defect="#ff9d4d")


def plot(
    title: str,
    text: str,
    draw: Callable[[Axes, PlotStyle], None],
    height_in: float = _SIZE_IN[1],
) -> Plot:
    """Plot with `draw`, called for each style with axes that have only a grid."""
    light, dark = (_svg(draw, look, height_in) for look in (_LIGHT, _DARK))
    return Plot(title, text, light, dark)


def _svg(draw: Callable[[Axes, PlotStyle], None], look: PlotStyle, height_in: float) -> bytes:
    buffer = io.BytesIO()
    look_of = matplotlib.rc_context(
        {
            # The same figures give the same bytes.
            "svg.hashsalt": "linegate",
            # Text stays text: a class name may be in any script, and the browser has the glyphs.
            "svg.fonttype": "none",
            "font.size": 11,
            "text.color": look.ink,
            "axes.edgecolor": look.grid,
            "axes.labelcolor": look.ink,
            "xtick.color": look.ink,
            "ytick.color": look.ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            # A class name with two dollar signs is not a formula.
            "text.parse_math": False,
        }
    )
    with look_of, warnings.catch_warnings():
        # Needed only for the layout, which may be slightly off.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure = Figure(figsize=(_SIZE_IN[0], height_in), layout="constrained")
        axes = figure.subplots()
        axes.grid(color=look.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes, look)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
