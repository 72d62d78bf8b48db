"""The seeded strip: the same lines however it is cut, and a truth that can be trusted."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from edge_agent.frame import ClassMap, Image
from edge_agent.simulation.rolled_steel import CLASS_NAMES, SteelDefect, SteelSettings, SteelStrip

# Narrow and dense: many marks in few pixels.
DENSE = SteelSettings(width_px=800, defects_per_m=15, harmless_per_m=6)
LINES = 2048
FIRST = 2 * LINES


@cache
def dense_marks(lines: int = 120 * 256) -> tuple[SteelDefect, ...]:
    return SteelStrip(5, DENSE).defects(0, lines)


@cache
def rendered(
    defects_per_m: float = DENSE.defects_per_m, harmless_per_m: float = DENSE.harmless_per_m
) -> Image:
    """The same lines with these marks and no others."""
    settings = SteelSettings(
        width_px=800, defects_per_m=defects_per_m, harmless_per_m=harmless_per_m
    )
    return SteelStrip(5, settings).render(FIRST, LINES)


def _extent(mark: SteelDefect) -> tuple[slice, slice, slice, slice]:
    """Where a mark lies: lines and pixels of `rendered`, and the part of its own arrays."""
    height, width = mark.gain.shape
    top, bottom = max(mark.first_line, FIRST), min(mark.first_line + height, FIRST + LINES)
    left, right = max(mark.first_px, 0), min(mark.first_px + width, 800)
    return (
        slice(top - FIRST, bottom - FIRST),
        slice(left, right),
        slice(top - mark.first_line, bottom - mark.first_line),
        slice(left - mark.first_px, right - mark.first_px),
    )


# The same strip.


def test_the_same_seed_gives_the_same_pixels() -> None:
    one, other = (SteelStrip(3, DENSE).render(1000, 300) for _ in range(2))
    assert one.dtype == np.uint8
    assert one.shape == (300, 800)
    np.testing.assert_array_equal(one, other)


def test_another_seed_gives_another_strip() -> None:
    one, other = (SteelStrip(seed, DENSE) for seed in (3, 4))
    assert (one.render(0, 256) != other.render(0, 256)).mean() > 0.5
    assert (one.truth(0, 10_000) != other.truth(0, 10_000)).any()
    assert one.line_period_s(0) != other.line_period_s(0)


@pytest.mark.parametrize("height", [1, 37, 255, 256, 300, LINES])
def test_any_cut_gives_the_same_lines(height: int) -> None:
    lines = 300 if height == 1 else 1024
    strip = SteelStrip(5, DENSE)
    image = np.empty((lines, 800), np.uint8)
    truth: ClassMap = np.empty((lines, 800), np.uint8)
    for first in range(0, lines, height):
        count = min(height, lines - first)
        image[first : first + count] = strip.render(FIRST + first, count)
        truth[first : first + count] = strip.truth(FIRST + first, count)
    np.testing.assert_array_equal(image, rendered()[:lines])
    np.testing.assert_array_equal(truth, SteelStrip(5, DENSE).truth(FIRST, LINES)[:lines])
    assert truth.any()


def test_the_order_of_asking_does_not_matter() -> None:
    strip = SteelStrip(5, DENSE)
    strip.render(90_000, 10)
    strip.defects(0, 50_000)  # more than any cache holds
    for first in (700, 0, 333, 0):
        np.testing.assert_array_equal(
            strip.render(FIRST + first, 300), rendered()[first : first + 300]
        )


def test_far_down_the_strip_is_as_near_as_the_beginning() -> None:
    strip, line = SteelStrip(5, DENSE), 10**10 + 7
    whole = strip.render(line, 300)
    np.testing.assert_array_equal(SteelStrip(5, DENSE).render(line + 100, 200), whole[100:])
    assert strip.line_period_s(line) > 0


@pytest.mark.parametrize("width_px", [800, 2048])
def test_width(width_px: int) -> None:
    strip = SteelStrip(1, SteelSettings(width_px=width_px))
    assert strip.render(0, 10).shape == strip.truth(0, 10).shape == (10, width_px)


def test_grey_levels_are_those_of_a_well_lit_camera() -> None:
    for seed in range(5):
        image = SteelStrip(seed, SteelSettings(width_px=800, harmless_per_m=0)).render(0, 256)
        assert 30 < image.mean() < 170
        assert ((image == 0) | (image == 255)).mean() < 0.01
        assert image.std() > 2


def test_lines_differ_from_each_other() -> None:
    image = rendered(0, 0)
    assert (image[1:] != image[:-1]).any(axis=1).all()


def test_noise_does_not_come_back() -> None:
    # From line to line, where grain and lighting hardly change, what is left is noise.
    change = np.diff(rendered(0, 0).astype(float), axis=0)
    blocks = [change[first : first + 255].ravel() for first in range(0, LINES, 256)]
    for one, other in pairwise(blocks):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


# The speed.


def test_line_period_is_positive_and_varies() -> None:
    strip = SteelStrip(5, DENSE)
    periods = np.array([strip.line_period_s(line) for line in range(0, 60_000, 500)])
    # 0.25 mm at 1.2 to 1.8 m/s, a quarter more or less.
    assert periods.min() >= 0.25e-3 / (1.8 * 1.25)
    assert periods.max() <= 0.25e-3 / (1.2 * 0.75)
    assert periods.max() > 1.1 * periods.min()


def test_the_speed_has_no_jumps() -> None:
    strip = SteelStrip(5, DENSE)
    periods = np.array([strip.line_period_s(line) for line in range(900, 1200)])
    assert (np.abs(np.diff(periods)) < 0.002 * periods[1:]).all()


def test_slow_stretches_are_brighter() -> None:
    lines = range(0, LINES, 64)
    grey = [rendered(0, 0)[line : line + 64].mean() for line in lines]
    periods = [SteelStrip(5, DENSE).line_period_s(FIRST + line) for line in lines]
    assert np.corrcoef(grey, periods)[0, 1] > 0.9


def test_a_finer_pixel_passes_sooner() -> None:
    coarse, fine = (SteelStrip(5, SteelSettings(pixel_mm=mm)) for mm in (0.5, 0.25))
    assert coarse.line_period_s(77) == pytest.approx(2 * fine.line_period_s(77))


# The marks.


def test_every_class_occurs() -> None:
    assert {mark.class_id for mark in dense_marks()} == set(range(1, len(CLASS_NAMES) + 1))
    seen = np.unique(SteelStrip(5, DENSE).truth(0, 60 * 256))
    assert seen.tolist() == [0, 1, 2, 3, 4]


def test_rate_is_per_metre_of_strip() -> None:
    metres = 120 * 256 * 0.25 / 1000
    # Poisson: four sigmas either way.
    expected = DENSE.defects_per_m * metres
    assert abs(len(dense_marks()) - expected) < 4 * expected**0.5


def test_marks_hang_over_both_edges() -> None:
    left = [m for m in dense_marks() if m.first_px < 0]
    right = [m for m in dense_marks() if m.first_px + m.gain.shape[1] > 800]
    assert left
    assert right
    for mark in dense_marks():
        # A quarter of its width at most.
        hang = mark.gain.shape[1] // 4
        assert -hang <= mark.first_px < 800 - mark.gain.shape[1] + hang
    truth = SteelStrip(5, DENSE).truth(0, 60 * 256)
    assert truth[:, 0].any()
    assert truth[:, -1].any()


def test_marks_go_on_in_the_next_block() -> None:
    assert any(
        m.first_line // 256 != (m.first_line + m.gain.shape[0] - 1) // 256 for m in dense_marks()
    )
    # No mark is longer than the way back that a block looks for it.
    assert max(m.gain.shape[0] for m in dense_marks()) <= 768


def test_contrast_stays_within_its_range() -> None:
    for mark in dense_marks():
        assert DENSE.min_contrast <= mark.contrast <= DENSE.max_contrast
    contrasts = [m.contrast for m in dense_marks()]
    assert max(contrasts) > 2 * min(contrasts)
    narrow = SteelSettings(width_px=800, defects_per_m=15, min_contrast=0.3, max_contrast=0.31)
    marks = SteelStrip(5, narrow).defects(0, 40 * 256)
    assert marks
    assert all(0.3 <= mark.contrast <= 0.31 for mark in marks)


def test_a_mark_has_a_mask_and_a_finite_gain() -> None:
    for mark in dense_marks():
        assert mark.mask.shape == mark.gain.shape
        assert mark.mask.any()
        assert np.isfinite(mark.gain).all()
        assert mark.gain.any()


def test_defects_are_those_that_touch_the_lines() -> None:
    strip = SteelStrip(5, DENSE)
    some = strip.defects(FIRST, 256)
    assert some
    for mark in some:
        assert mark.first_line < FIRST + 256
        assert mark.first_line + mark.gain.shape[0] > FIRST
    touching = [
        m
        for m in dense_marks()
        if m.first_line < FIRST + 256 and m.first_line + m.gain.shape[0] > FIRST
    ]
    assert [m.first_line for m in some] == [m.first_line for m in touching]


# The truth.


def test_truth_is_the_masks_of_the_marks_and_nothing_else() -> None:
    expected: ClassMap = np.zeros((LINES, 800), np.uint8)
    for mark in SteelStrip(5, DENSE).defects(FIRST, LINES):
        lines, pixels, mark_lines, mark_pixels = _extent(mark)
        expected[lines, pixels][mark.mask[mark_lines, mark_pixels]] = mark.class_id
    assert expected.any()
    np.testing.assert_array_equal(SteelStrip(5, DENSE).truth(FIRST, LINES), expected)


def test_without_defects_there_is_no_truth() -> None:
    strip = SteelStrip(5, SteelSettings(width_px=800, defects_per_m=0, harmless_per_m=30))
    assert not strip.truth(0, 40 * 256).any()
    assert strip.defects(0, 40 * 256) == ()


def test_harmless_marks_show_and_have_no_truth() -> None:
    change = np.abs(rendered(0, 30).astype(int) - rendered(0, 0))
    # A plain grey-level threshold takes these for defects.
    assert (change > 20).sum() > 500


def test_a_defect_changes_its_pixels_and_no_others() -> None:
    marks = SteelStrip(5, DENSE).defects(FIRST, LINES)
    change = rendered().astype(int) - rendered(defects_per_m=0)
    touched = np.zeros(change.shape, np.bool_)
    for mark in marks:
        lines, pixels, mark_lines, mark_pixels = _extent(mark)
        touched[lines, pixels] |= mark.gain[mark_lines, mark_pixels] != 0
    assert not change[~touched].any()
    seen = 0
    for mark in marks:
        lines, pixels, mark_lines, mark_pixels = _extent(mark)
        mask = mark.mask[mark_lines, mark_pixels]
        if mask.sum() < 100:
            continue  # only its tip is on these lines
        size = np.abs(change[lines, pixels][mask])
        grey = rendered(defects_per_m=0)[lines, pixels][mask].mean()
        # On average as strong as it says, within a factor of about three.
        assert size.mean() > 0.3 * mark.contrast * grey
        seen += 1
    assert seen >= 5


def test_defects_can_be_told_from_steel() -> None:
    # Of the class map as of a detector: the change sits where the truth is.
    truth = SteelStrip(5, DENSE).truth(FIRST, LINES) > 0
    change = np.abs(rendered().astype(int) - rendered(defects_per_m=0))
    assert change[truth].mean() > 10 * change[~truth].mean()
