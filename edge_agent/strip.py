"""From pixels of a frame to places on the strip, and defects that cross a seam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.frame import Frame, Region


@dataclass(frozen=True, slots=True)
class Place:
    """Where a region lies: centre across from the frame's first pixel, start along from line 0.

    Millimetres and metres are None where the pixel pitch is not configured.
    """

    defect_id: str
    across_mm: float | None
    along_m: float | None
    area_mm2: float | None


@dataclass(frozen=True, slots=True)
class _Open:
    """A region that reached the last line of the frame before."""

    defect_id: str
    class_id: int
    left_px: int
    right_px: int


class Strip:
    """Gives each region its place, and the id of the region it continues from the last frame.

    A region continues another if it starts on the frame's first line, the other ended on the
    line just before, both are of one class and they touch (diagonals included). Of several that
    touch, the first met keeps the id.
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

    def place(self, frame: Frame, found: tuple[Region, ...]) -> tuple[Place, ...]:
        """One Place a region, in order. Call for every inspected frame, clean ones included."""
        before = list(self._open) if frame.first_line == self._next_line else []
        self._next_line = frame.first_line + frame.line_count
        places, still_open = [], []
        for index, region in enumerate(found):
            right = region.x_px + region.width_px
            match = next(
                (
                    o
                    for o in before
                    if region.y_px == 0
                    and o.class_id == region.class_id
                    and o.left_px <= right
                    and region.x_px <= o.right_px
                ),
                None,
            )
            if match:
                before.remove(match)
            defect_id = match.defect_id if match else self._new_id(frame, index)
            places.append(self._place(frame, region, defect_id))
            if region.y_px + region.height_px == frame.line_count:
                still_open.append(_Open(defect_id, region.class_id, region.x_px, right))
        self._open = tuple(still_open)
        return tuple(places)

    def _place(self, frame: Frame, region: Region, defect_id: str) -> Place:
        across, along = self._pixel_mm, self._line_mm
        return Place(
            defect_id,
            None if across is None else (region.x_px + region.width_px / 2) * across,
            None if along is None else (frame.first_line + region.y_px) * along / 1000,
            None if across is None or along is None else region.area_px * across * along,
        )
