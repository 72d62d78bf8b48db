"""Places on the strip, and defects that go on in the next frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.frame import Frame, LineSpan, Region
from edge_agent.inspection.strip import DefectPosition, StripTracker, untold

LINES = 256


def _frame(number: int, *, first_line: int | None = None, lines: int = LINES) -> Frame:
    return Frame(
        image=np.zeros((lines, 8), np.uint8),
        frame_id=number,
        span=LineSpan(
            first_line=number * lines if first_line is None else first_line,
            line_count=lines,
            captured_utc_ns=0,
            captured_monotonic_ns=0,
        ),
    )


def _region(
    x: int = 100, y: int = 0, width: int = 20, height: int = LINES, class_id: int = 1
) -> Region:
    return Region(
        class_id=class_id,
        confidence=0.9,
        x_px=x,
        y_px=y,
        width_px=width,
        height_px=height,
        area_px=width * height,
        rle="",
    )


def _strip(pixel_mm: float | None = None, line_mm: float | None = None) -> StripTracker:
    return StripTracker(pixel_mm, line_mm, lambda frame, index: f"{frame.frame_id}-{index}")


def _ids(places: tuple[DefectPosition, ...]) -> list[str]:
    return [place.defect_id for place in places]


# Ids.


def test_every_region_has_an_id_of_its_own() -> None:
    strip = _strip()
    first = strip.place(_frame(0), (_region(x=0, height=9), _region(x=50, height=9)))
    second = strip.place(_frame(1), (_region(y=4, height=9),))
    assert _ids(first + second) == ["0-0", "0-1", "1-0"]


def test_a_defect_keeps_its_id_over_many_seams() -> None:
    strip = _strip()
    seen = [strip.place(_frame(0), (_region(y=200, height=56),))]
    seen += [strip.place(_frame(number), (_region(x=100 + number),)) for number in (1, 2, 3)]
    seen.append(strip.place(_frame(4), (_region(height=30),)))
    assert {place.defect_id for places in seen for place in places} == {"0-0"}
    # It ended within frame 4: what comes after is another.
    assert _ids(strip.place(_frame(5), (_region(),))) == ["5-0"]


def test_a_defect_that_ends_before_the_seam_does_not_go_on() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(y=100, height=155),))  # one line short of the last
    assert _ids(strip.place(_frame(1), (_region(height=10),))) == ["1-0"]


def test_a_defect_that_begins_after_the_seam_is_another() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(y=200, height=56),))
    assert _ids(strip.place(_frame(1), (_region(y=1, height=10),))) == ["1-0"]


def test_another_class_is_another_defect() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(class_id=1),))
    assert _ids(strip.place(_frame(1), (_region(class_id=2),))) == ["1-0"]


@pytest.mark.parametrize(
    ("x", "width", "same"),
    [
        (100, 20, True),
        (110, 5, True),  # within
        (90, 100, True),  # around
        (120, 10, True),  # diagonally at its right corner
        (121, 10, False),  # one pixel off
        (90, 10, True),  # diagonally at its left corner
        (89, 10, False),
        (300, 10, False),
    ],
)
def test_they_must_touch_diagonals_included(x: int, width: int, same: bool) -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(x=100, width=20),))
    (place,) = strip.place(_frame(1), (_region(x=x, width=width),))
    assert (place.defect_id == "0-0") is same


def test_of_several_that_touch_the_first_keeps_the_id() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(x=100, width=100),))
    places = strip.place(_frame(1), (_region(x=100, width=10), _region(x=150, width=10)))
    assert _ids(places) == ["0-0", "1-1"]


def test_two_that_become_one_go_on_as_the_first() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(x=100, width=10), _region(x=150, width=10)))
    assert _ids(strip.place(_frame(1), (_region(x=100, width=60),))) == ["0-0"]


def test_two_side_by_side_each_go_on() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(x=10), _region(x=500)))
    # The order within a frame is by area and says nothing.
    assert _ids(strip.place(_frame(1), (_region(x=500), _region(x=10)))) == ["0-1", "0-0"]


def test_lines_that_are_missing_break_a_defect() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(),))
    assert _ids(strip.place(_frame(2), (_region(),))) == ["2-0"]


def test_one_missing_line_breaks_a_defect() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(),))
    late = _frame(1, first_line=LINES + 1)
    assert _ids(strip.place(late, (_region(),))) == ["1-0"]


def test_a_clean_frame_between_breaks_a_defect() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(),))
    assert strip.place(_frame(1), ()) == ()
    assert _ids(strip.place(_frame(2), (_region(),))) == ["2-0"]


def test_seams_between_frames_of_different_heights() -> None:
    strip = _strip()
    strip.place(_frame(0, first_line=0, lines=100), (_region(y=50, height=50),))
    following = _frame(1, first_line=100, lines=7)
    assert _ids(strip.place(following, (_region(height=7),))) == ["0-0"]
    last = _frame(2, first_line=107, lines=30)
    assert _ids(strip.place(last, (_region(height=3),))) == ["0-0"]


def test_the_first_frame_continues_nothing() -> None:
    assert _ids(_strip().place(_frame(0), (_region(),))) == ["0-0"]


# Places.


def test_millimetres_across_metres_along() -> None:
    strip = _strip(0.25, 0.5)
    (place,) = strip.place(_frame(10), (_region(x=400, y=40, width=20, height=10),))
    assert place.across_mm == pytest.approx(410 * 0.25)  # of its centre
    assert place.along_m == pytest.approx((2560 + 40) * 0.5 / 1000)  # of its first line
    assert place.area_mm2 == pytest.approx(200 * 0.25 * 0.5)


@pytest.mark.parametrize(("pixel_mm", "line_mm"), [(None, None), (0.25, None), (None, 0.5)])
def test_what_is_not_configured_is_not_made_up(
    pixel_mm: float | None, line_mm: float | None
) -> None:
    (place,) = _strip(pixel_mm, line_mm).place(_frame(1), (_region(height=10),))
    assert (place.across_mm is None) == (pixel_mm is None)
    assert (place.along_m is None) == (line_mm is None)
    assert place.area_mm2 is None


def test_places_come_in_the_order_of_the_regions() -> None:
    strip = _strip(1.0, 1.0)
    places = strip.place(_frame(0), (_region(x=500, height=9), _region(x=10, height=9)))
    assert [place.across_mm for place in places] == [510, 20]


# Lines that two frames show.


def _overlapping(number: int, first_line: int, overlap_lines: int) -> Frame:
    return replace(_frame(number, first_line=first_line), overlap_lines=overlap_lines)


def test_what_the_frame_before_has_told_is_not_told_again() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(y=200, height=30),))
    found = (_region(y=8, height=30), _region(x=400, y=100, height=30))
    places = strip.place(_overlapping(1, 192, 64), found)
    assert _ids(places) == ["0-0", "1-1"]
    assert [place.told for place in places] == [True, False]
    assert untold(found, places) == ((found[1],), (places[1],))


def test_what_the_frame_before_missed_is_told() -> None:
    strip = _strip()
    strip.place(_frame(0), ())
    (place,) = strip.place(_overlapping(1, 192, 64), (_region(y=8, height=30),))
    assert (place.defect_id, place.told) == ("1-0", False)


def test_a_defect_on_the_seam_goes_on_under_its_id() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(y=230, height=26),))
    (place,) = strip.place(_overlapping(1, 192, 64), (_region(y=38, height=60),))
    assert (place.defect_id, place.told) == ("0-0", False)
    # And into a third frame, from its repeated lines on.
    (last,) = strip.place(_overlapping(2, 192 + LINES - 200, 200), (_region(y=0, height=40),))
    assert (last.defect_id, last.told) == ("0-0", True)


def test_two_pieces_of_what_was_told_are_both_told() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(y=200, height=50),))
    pieces = (_region(y=8, height=10), _region(y=30, height=10))
    places = strip.place(_overlapping(1, 192, 64), pieces)
    assert [place.told for place in places] == [True, True]
    assert _ids(places) == ["0-0", "0-0"]


def test_another_class_or_place_in_the_overlap_lines_is_another_defect() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(y=200, height=30),))
    others = (_region(y=8, height=30, class_id=2), _region(x=300, y=8, height=30))
    places = strip.place(_overlapping(1, 192, 64), others)
    assert [place.told for place in places] == [False, False]
    assert _ids(places) == ["1-0", "1-1"]


def test_after_a_frame_that_was_not_judged_all_is_told() -> None:
    strip = _strip()
    strip.place(_frame(0), (_region(y=200, height=30),))
    (place,) = strip.place(_overlapping(2, 192 + 192, 64), (_region(y=8, height=30),))
    assert (place.defect_id, place.told) == ("2-0", False)


def test_along_the_strip_counts_from_the_frames_first_line() -> None:
    strip = _strip(line_mm=2.0)
    strip.place(_frame(0), ())
    (place,) = strip.place(_overlapping(1, 192, 64), (_region(y=100, height=30),))
    assert place.along_m == pytest.approx((192 + 100) * 2.0 / 1000)
