"""Plots of a data set: counts, areas, sizes, samples with their masks, near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edge_agent.frame import Image
from training.data_report.figures import DataReport
from workshop.datasets import DataSet
from workshop.errors import WorkshopError

_COLUMNS = 5
_MAX_ROWS = 12
_MAX_PAIRS = 12
_SIDE_PX = 320
_CELL_IN = 2.2
_DPI = 120
_DEFECT_FREE = "#8a8f98"


def plots(dataset: DataSet, report: DataReport, out: Path) -> tuple[Path, ...]:
    """Write the plots of a report as PNG files.

    Args:
        dataset: The data set.
        report: Its report.
        out: Folder for classes.png, areas.png, sizes.png and samples.png, and for
            near_duplicates.png if there are any.

    Returns:
        The paths of the files.

    Raises:
        WorkshopError: The folder cannot be written.
    """
    figures = {
        "classes": _class_counts(report),
        "areas": _areas(report),
        "sizes": _sizes(report),
        "samples": _samples(dataset, report),
    }
    if report.near_duplicates:
        figures["near_duplicates"] = _near_duplicates(dataset, report)
    paths = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            paths.append(out / f"{name}.png")
            FigureCanvasAgg(figure)
            # By default the file contains the version of matplotlib and would change with it.
            figure.savefig(paths[-1], dpi=_DPI, metadata={"Software": None})
    except OSError as error:
        raise WorkshopError(f"{out}: {error.strerror}; give a writable folder") from None
    return tuple(paths)


def _colour(class_id: int) -> tuple[float, float, float]:
    """Return one of ten distinct colours; they repeat after ten classes."""
    red, green, blue = matplotlib.colormaps["tab10"](class_id % 10)[:3]
    return red, green, blue


def _class_counts(report: DataReport) -> Figure:
    figure, axes = _figure()
    names = ["defect-free", *(_plain(figures.name) for figures in report.classes)]
    counts = [report.defect_free, *(figures.images for figures in report.classes)]
    colours = [_DEFECT_FREE, *(_colour(figures.class_id) for figures in report.classes)]
    bars = axes.barh(range(len(names)), counts, color=colours)
    axes.bar_label(bars, padding=3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="images", title=f"{_plain(report.name)}: images by class")
    return figure


def _areas(report: DataReport) -> Figure:
    figure, axes = _figure()
    for figures in report.classes:
        if figures.areas_log2:
            edges = 2.0 ** np.arange(len(figures.areas_log2) + 1)
            axes.stairs(
                figures.areas_log2,
                edges,
                color=_colour(figures.class_id),
                label=_plain(figures.name),
                linewidth=1.8,
            )
    if axes.patches:
        axes.set_xscale("log", base=2)
        axes.legend()
    axes.set(xlabel="area of a defect in px", ylabel="defects", title="Areas of defects")
    return figure


def _sizes(report: DataReport) -> Figure:
    figure, axes = _figure()
    if report.sizes:
        axes.scatter(
            [size.width_px for size in report.sizes],
            [size.height_px for size in report.sizes],
            s=[12 + 4 * float(np.sqrt(size.images)) for size in report.sizes],
            alpha=0.5,
            color=_DEFECT_FREE,
        )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    axes.set(xlabel="width in px", ylabel="height in px", title="Sizes of images")
    return figure


def _samples(dataset: DataSet, report: DataReport) -> Figure:
    undrawn = set(report.undrawn)
    rows: list[tuple[str, list[int]]] = []
    for class_id, name in enumerate(("defect-free", *dataset.class_names)):
        indices = [
            index
            for index, sample in enumerate(dataset.samples)
            if (class_id in sample.class_ids if class_id else not sample.defective)
            and sample.name not in undrawn
        ]
        if indices:
            rows.append((name, _spread_over(indices, _COLUMNS)))
    rows = rows[:_MAX_ROWS]
    sheet = np.full((max(1, len(rows)), _COLUMNS), None, dtype=object)
    for r, (_, indices) in enumerate(rows):
        for c, index in enumerate(indices):
            sheet[r, c] = _outlined(dataset, index)
    return _sheet(sheet.tolist(), [name for name, _ in rows], "Samples by class, masks outlined")


def _near_duplicates(dataset: DataSet, report: DataReport) -> Figure:
    at = {sample.name: index for index, sample in enumerate(dataset.samples)}
    order = sorted(report.near_duplicates, key=lambda pair: pair.likeness)
    chosen = [order[i] for i in _spread_over(range(len(order)), _MAX_PAIRS)]
    cells: list[list[Image | None]] = []
    titles = []
    for pair in chosen:
        cells.append([_outlined(dataset, at[name]) for name in (pair.first, pair.second)])
        titles.append(f"{pair.likeness:.2f}\n{pair.first}\n{pair.second}")
    return _sheet(cells, titles, "Near-duplicates, lowest likeness first")


def _spread_over(items: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of the items, evenly spaced."""
    picks = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in picks.tolist()]


def _outlined(dataset: DataSet, index: int) -> Image | None:
    """Return a small RGB image with its masks outlined, or None if it cannot be read."""
    try:
        image = dataset.image(index)
    except WorkshopError:
        return None
    rgb = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    scale = min(1.0, 2 * _SIDE_PX / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    try:
        planes = dataset.planes(index)
    except WorkshopError:
        return np.asarray(small, np.uint8)
    for class_id in (np.flatnonzero(planes.any(axis=(0, 1))) + 1).tolist():
        plane = np.ascontiguousarray(planes[:, :, class_id - 1]).view(np.uint8)
        # Scaled by area, with every covered pixel, so that small defects stay visible.
        cover = cv2.resize(plane * np.uint8(255), size, interpolation=cv2.INTER_AREA)
        touched = (cover > 0).astype(np.uint8)
        contours, _ = cv2.findContours(touched, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        colour = tuple(round(255 * part) for part in _colour(class_id))
        cv2.drawContours(small, contours, -1, colour, 2 if max(size) > _SIDE_PX else 1)
    return np.asarray(small, np.uint8)


def _sheet(cells: Sequence[Sequence[Image | None]], titles: Sequence[str], title: str) -> Figure:
    columns = len(cells[0])
    shapes = [image.shape for row in cells for image in row if image is not None]
    aspect = float(np.median([height / width for height, width, _ in shapes])) if shapes else 1.0
    row_in = _CELL_IN * min(max(aspect, 0.25), 1.5)
    size = (1.6 + _CELL_IN * columns, 0.6 + row_in * len(cells))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(cells), columns, squeeze=False)
    for r, row in enumerate(cells):
        for c, image in enumerate(row):
            axes = grid[r, c]
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if image is not None:
                axes.imshow(image)
        if r < len(titles):
            grid[r, 0].set_ylabel(
                _plain(titles[r]), rotation=0, ha="right", va="center", fontsize=8
            )
    return figure


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4), layout="constrained")
    return figure, figure.subplots()


def _plain(text: str) -> str:
    """Escape dollar signs: matplotlib reads text between two of them as a formula."""
    return text.replace("$", r"\$")
