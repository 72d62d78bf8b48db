"""Positions of regions on the strip, and defects that appear in two frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_agent.frame import Frame, Region


@dataclass(frozen=True, slots=True)
class DefectPosition:
    """Position of a region: centre across from the frame's first pixel, start along from line 0.

    Millimetres and metres are None if the pixel pitch is not configured. `told` is True if the
    region lies within the overlap lines and the previous frame already reported it as a defect.
    """

    defect_id: str
    across_mm: float | None
    along_m: float | None
    area_mm2: float | None
    told: bool = False


@dataclass(frozen=True, slots=True)
class _Open:
    """Region of the previous frame, in strip lines; `bottom` is the line after its last."""

    defect_id: str
    class_id: int
    left_px: int
    right_px: int
    top: int
    bottom: int

    def touches(self, other: _Open) -> bool:
        """Return True if both regions have one class and touch, diagonals included."""
        return (
            self.class_id == other.class_id
            and self.left_px <= other.right_px
            and other.left_px <= self.right_px
            and self.top <= other.bottom
            and other.top <= self.bottom
        )


class StripTracker:
    """Tracker that assigns each region its position and the id of the region it continues.

    A region continues a region of the previous frame if both have the same class, they touch
    (diagonals included) and they meet at the boundary of the frames. Without overlap lines the new
    region starts on the frame's first line and the old one ended on the line just before. With
    overlap lines the new region starts within them or right after, and the old one reached into
    them or ended right before. If several regions touch one, the first one matched keeps the id;
    all regions within the overlap lines count as already reported.
    """

    def __init__(
        self,
        pixel_width_mm: float | None,
        line_length_mm: float | None,
        new_id: Callable[[Frame, int], str],
    ) -> None:
        self._pixel_mm, self._line_mm, self._new_id = pixel_width_mm, line_length_mm, new_id
        self._next_line = -1
        self._open: tuple[_Open, ...] = ()
        self._class_names: tuple[str, ...] = ()

    def place(
        self, frame: Frame, found: tuple[Region, ...], class_names: tuple[str, ...] = ()
    ) -> tuple[DefectPosition, ...]:
        """Return one `DefectPosition` per region, in order.

        Call it for every inspected frame, clean frames included. If `class_names` change, class
        ids have another meaning and no region is continued.
        """
        seam = frame.first_line + frame.overlap_lines
        goes_on = seam == self._next_line and class_names == self._class_names
        old = self._open if goes_on else ()
        free = [o for o in old if o.bottom >= frame.first_line]
        shared = tuple(free)
        self._class_names = class_names
        self._next_line = frame.first_line + frame.line_count
        places, now = [], []
        for index, region in enumerate(found):
            top = frame.first_line + region.y_px
            here = _Open(
                "",
                region.class_id,
                region.x_px,
                region.x_px + region.width_px,
                top,
                top + region.height_px,
            )
            told = here.bottom <= seam and frame.overlap_lines > 0
            candidates = shared if told else free
            match = next((o for o in candidates if top <= seam and o.touches(here)), None)
            if match and match in free:
                free.remove(match)
            defect_id = match.defect_id if match else self._new_id(frame, index)
            places.append(self._place(frame, region, defect_id, told=told and match is not None))
            now.append(replace(here, defect_id=defect_id))
        self._open = tuple(now)
        return tuple(places)

    def _place(self, frame: Frame, region: Region, defect_id: str, *, told: bool) -> DefectPosition:
        across, along = self._pixel_mm, self._line_mm
        return DefectPosition(
            defect_id,
            None if across is None else (region.x_px + region.width_px / 2) * across,
            None if along is None else (frame.first_line + region.y_px) * along / 1000,
            None if across is None or along is None else region.area_px * across * along,
            told,
        )


def untold(
    found: tuple[Region, ...], places: tuple[DefectPosition, ...]
) -> tuple[tuple[Region, ...], tuple[DefectPosition, ...]]:
    """Return the regions and positions that no previous frame has reported."""
    new = [(region, place) for region, place in zip(found, places, strict=True) if not place.told]
    return tuple(region for region, _ in new), tuple(place for _, place in new)
