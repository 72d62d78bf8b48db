"""Inspection report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from training.data_report.figures import DataReport, Spread

_SHOWN = 5


def text(report: DataReport) -> str:
    """Format a report for a terminal; long lists are cut, `--json` has them in full."""
    return "\n".join(_lines(report))


def _lines(report: DataReport) -> Iterator[str]:
    r = report
    yield f"{r.name}: {r.images} images, {r.defective} defective, {r.defect_free} defect-free"
    yield from _sizes(r)
    if r.classes:
        yield ""
        yield from _classes(r)
    if r.parts is not None:
        yield ""
        yield from part_table(r.parts)
        if r.unused:
            yield f"{r.unused} images in no part"
    yield ""
    yield from _list("unreadable images", r.unreadable)
    yield from _list("invalid masks", r.mask_errors)
    yield from _list("defective images without a mask", r.undrawn)
    yield from _list("defect-free images with a mask", r.drawn_on_defect_free)
    yield from _list("sets of identical files", [" = ".join(names) for names in r.duplicates])
    yield from _list(
        "near-duplicate pairs",
        [
            f"{p.first} ~ {p.second} ({p.likeness:.2f})"
            for p in sorted(r.near_duplicates, key=lambda p: -p.likeness)
        ],
    )
    if r.groups:
        yield f"{r.grouped_images} images have a duplicate or near-duplicate, in {r.groups} groups"
    if r.parts is not None:
        yield from _list(
            "groups across the parts of the split", [" ~ ".join(g) for g in r.across_parts]
        )


def part_table(parts: dict[str, dict[str, int]]) -> Iterator[str]:
    """Yield the lines of a table of images by part and class, from `parts[part][class]`."""
    rows = [["", *parts]]
    rows += [
        [name, *(str(counts[name]) for counts in parts.values())]
        for name in next(iter(parts.values()))
    ]
    return _table(rows)


def _sizes(r: DataReport) -> Iterator[str]:
    if r.width_px is None or r.height_px is None:
        return
    if len(r.sizes) == 1:
        yield f"size: all {r.sizes[0].width_px}x{r.sizes[0].height_px} px"
        return
    yield (
        f"size in px, smallest / median / largest: width {_three(r.width_px)}, "
        f"height {_three(r.height_px)}; {len(r.sizes)} sizes"
    )


def _three(spread: Spread) -> str:
    return f"{spread.smallest:.0f} / {spread.median:.0f} / {spread.largest:.0f}"


def _classes(r: DataReport) -> Iterator[str]:
    rows = [["class", "images", "drawn", "defects", "per image", "area px: 5 %", "50 %", "95 %"]]
    rows[0] += ["of the image: 5 %", "50 %", "95 %"]
    for figures in r.classes:
        row = [figures.name, str(figures.images), str(figures.drawn), str(figures.defects)]
        if figures.per_image is None or figures.area_px is None or figures.area_share is None:
            row += ["-"] * 7
        else:
            area, share = figures.area_px, figures.area_share
            row.append(f"{figures.defects / figures.drawn:.1f}")
            row += [f"{value:.0f}" for value in (area.p5, area.median, area.p95)]
            row += [f"{value:.3%}" for value in (share.p5, share.median, share.p95)]
        rows.append(row)
    yield from _table(rows)
    if r.imbalance is None:
        yield "imbalance: a class has no image"
    else:
        yield f"imbalance: {r.imbalance:.1f} images of the largest class to 1 of the smallest"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join((first, *rest)).rstrip()


def _list(title: str, items: Sequence[str]) -> Iterator[str]:
    yield f"{title}: {len(items)}"
    yield from (f"  {item}" for item in items[:_SHOWN])
    if len(items) > _SHOWN:
        yield f"  … and {len(items) - _SHOWN} more"
