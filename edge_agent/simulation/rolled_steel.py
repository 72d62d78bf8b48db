"""Simulated strip of rolled steel with known defects.

Each line is a pure function of (seed, line number, settings), however the strip is cut to frames.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_agent.config.camera import SimulatedCamera
from edge_agent.frame import ClassMap, Image
from edge_agent.simulation.marks import DEFECTS, HARMLESS_MARKS, Field


def strip_of(config: SimulatedCamera) -> SteelStrip:
    """Return the strip that this camera captures; the same config gives the same ground truth."""
    return SteelStrip(
        config.seed,
        SteelSettings(
            width_px=config.width_px,
            defects_per_m=config.defects_per_m,
            harmless_per_m=config.harmless_per_m,
        ),
    )


CLASS_NAMES = ("pit", "scratch", "abrasion", "rolled_in_scale")

_BLOCK_LINES = 256  # lines rendered at a time; not visible in the result
_GRAIN_PITCH_LINES = 48
_SPEED_PITCH_LINES = 1024
_MAX_MARK_LINES = 768  # distance before a block at which a mark on the block can begin
# Keys of the random streams. Append only: a new key leaves the output of the others unchanged.
_COIL, _GRAIN, _SPEED, _NOISE, _DEFECT, _HARMLESS = range(6)


@dataclass(frozen=True, slots=True)
class SteelSettings:
    """Appearance of the strip. Rates are the number of marks that begin per metre of strip."""

    width_px: int = 1600
    pixel_mm: float = 0.25
    defects_per_m: float = 3.0
    harmless_per_m: float = 4.0
    min_contrast: float = 0.07
    """Weakest defect as a fraction of the local grey level: below two noise sigmas per pixel."""
    max_contrast: float = 0.55


@dataclass(frozen=True, slots=True, eq=False)
class SteelDefect:
    """Defect (`class_id` 1..4) or harmless mark (0) on the strip.

    1 + `gain` multiplies the steel's grey level; shape (lines, pixels). `mask` is the ground truth
    of the same shape. `first_px` may be negative: the mark then begins beyond the strip's edge.
    """

    class_id: int
    first_line: int
    first_px: int
    contrast: float
    gain: Field
    mask: NDArray[np.bool_]


class SteelStrip:
    """Endless strip of rolled steel with harmless marks and defects.

    The steel has a coil-wide grey level, lighting fall-off across the width, grain along the
    rolling direction, brighter sections at low speed, and the sensor's shot and read noise (linear
    model of EMVA 1288). Harmless marks (oil, water drops, dust) exceed a plain grey-level
    threshold as defects do. Random numbers come from generators keyed by (seed, kind, index),
    never from a running state.

    Not thread-safe (it caches the last blocks and marks); create one per thread.
    """

    def __init__(self, seed: int, settings: SteelSettings | None = None) -> None:
        self.seed = seed
        self.settings = settings or SteelSettings()
        self._marks: OrderedDict[tuple[int, int], tuple[SteelDefect, ...]] = OrderedDict()
        self._blocks: OrderedDict[int, Image] = OrderedDict()
        rng = self._rng(_COIL, 0)
        self._level = rng.uniform(70, 125)
        self._grain_sigma = np.float32(rng.uniform(0.012, 0.03))
        self._nominal_speed_m_s = rng.uniform(1.2, 1.8)
        x = np.linspace(-1, 1, self.settings.width_px, dtype=np.float32) - rng.uniform(-0.2, 0.2)
        self._lighting: Field = (1 - rng.uniform(0.25, 0.5) * x * x).astype(np.float32)

    def _rng(self, kind: int, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, kind, index))

    def render(self, first_line: int, line_count: int) -> Image:
        """Return lines [first_line, first_line + line_count) as uint8 (line_count, width_px)."""
        return self._cut(first_line, line_count, self._block, self._blocks, 4)

    def truth(self, first_line: int, line_count: int) -> ClassMap:
        """Return the class map of the lines, uint8 (line_count, width_px): 0 defect-free, 1..4."""
        classes = np.zeros((line_count, self.settings.width_px), np.uint8)
        for mark in self.defects(first_line, line_count):
            on_strip, on_mark = self._overlap(mark, first_line, line_count)
            classes[on_strip][mark.mask[on_mark]] = mark.class_id
        return classes

    def defects(self, first_line: int, line_count: int) -> tuple[SteelDefect, ...]:
        """Return the defects that touch these lines, in the order in which they are drawn."""
        return tuple(self._marks_on(_DEFECT, first_line, line_count))

    def mask_of(self, mark: SteelDefect, first_line: int, line_count: int) -> NDArray[np.bool_]:
        """Return `mark`'s mask, bool (line_count, width_px), including parts under later marks."""
        mask = np.zeros((line_count, self.settings.width_px), np.bool_)
        on_strip, on_mark = self._overlap(mark, first_line, line_count)
        mask[on_strip] = mark.mask[on_mark]
        return mask

    def line_period_s(self, line: int) -> float:
        """Return the time from this line to the next: pixel pitch over speed (encoder trigger)."""
        return self.settings.pixel_mm / 1000 / (self._nominal_speed_m_s * self._speed(line))

    def _speed(self, line: int) -> float:
        """Return the speed at `line` over nominal: knots every _SPEED_PITCH_LINES, linear."""
        knot, part = divmod(line, _SPEED_PITCH_LINES)
        here, there = (float(self._rng(_SPEED, k).uniform(0.75, 1.25)) for k in (knot, knot + 1))
        return here + (there - here) * part / _SPEED_PITCH_LINES

    def _cut(
        self,
        first_line: int,
        line_count: int,
        make: Callable[[int], Image],
        cache: OrderedDict[int, Image],
        keep: int,
    ) -> Image:
        out = np.empty((line_count, self.settings.width_px), np.uint8)
        line = first_line
        while line < first_line + line_count:
            index, offset = divmod(line, _BLOCK_LINES)
            if index not in cache:
                cache[index] = make(index)
                while len(cache) > keep:
                    cache.popitem(last=False)
            take = min(_BLOCK_LINES - offset, first_line + line_count - line)
            at = line - first_line
            out[at : at + take] = cache[index][offset : offset + take]
            line += take
        return out

    def _block(self, index: int) -> Image:
        first = index * _BLOCK_LINES
        shape = (_BLOCK_LINES, self.settings.width_px)
        lines = np.arange(first, first + _BLOCK_LINES)
        speeds = np.interp(
            (lines - first) / (_BLOCK_LINES - 1),
            (0, 1),
            (self._speed(first), self._speed(lines[-1])),
        )
        steel = np.float32(self._level) * self._lighting[None, :]
        steel = steel * (speeds**-0.3).astype(np.float32)[:, None]
        steel *= 1 + self._grain_sigma * self._grain(lines)
        for kind in (_HARMLESS, _DEFECT):
            for mark in self._marks_on(kind, first, _BLOCK_LINES):
                on_strip, on_mark = self._overlap(mark, first, _BLOCK_LINES)
                steel[on_strip] *= 1 + mark.gain[on_mark]
        np.clip(steel, 1, None, out=steel)
        noise = self._rng(_NOISE, index).standard_normal(shape, dtype=np.float32)
        # EMVA 1288: variance = read noise + gain * signal, here in grey levels.
        steel += noise * np.sqrt(2.0 + 0.08 * steel)
        levels: Image = np.clip(steel + 0.5, 0, 255).astype(np.uint8)
        return levels

    def _grain(self, lines: NDArray[np.int64]) -> Field:
        """Return streaks along the strip: white across, knots every _GRAIN_PITCH_LINES along."""
        knots = range(int(lines[0]) // _GRAIN_PITCH_LINES, int(lines[-1]) // _GRAIN_PITCH_LINES + 2)
        width = self.settings.width_px
        rows = np.stack([self._rng(_GRAIN, k).standard_normal(width, np.float32) for k in knots])
        at = lines / _GRAIN_PITCH_LINES - knots[0]
        low = at.astype(np.intp)
        turn = ((at - low) * (np.pi / 2)).astype(np.float32)[:, None]
        return np.asarray(np.cos(turn) * rows[low] + np.sin(turn) * rows[low + 1], np.float32)

    def _marks_on(self, kind: int, first_line: int, line_count: int) -> Iterator[SteelDefect]:
        start = max(0, first_line - _MAX_MARK_LINES) // _BLOCK_LINES
        for slot in range(start, (first_line + line_count - 1) // _BLOCK_LINES + 1):
            for mark in self._slot(kind, slot):
                if (
                    mark.first_line < first_line + line_count
                    and mark.first_line + mark.gain.shape[0] > first_line
                ):
                    yield mark

    def _slot(self, kind: int, slot: int) -> tuple[SteelDefect, ...]:
        """Return the marks that begin within one block of lines."""
        if (kind, slot) not in self._marks:
            rng, setting = self._rng(kind, slot), self.settings
            per_m = setting.defects_per_m if kind == _DEFECT else setting.harmless_per_m
            count = int(rng.poisson(per_m * _BLOCK_LINES * setting.pixel_mm / 1000))
            make = partial(self._defect if kind == _DEFECT else self._harmless, rng, slot)
            self._marks[kind, slot] = tuple(make() for _ in range(count))
            while len(self._marks) > 32:
                self._marks.popitem(last=False)
        return self._marks[kind, slot]

    def _defect(self, rng: np.random.Generator, slot: int) -> SteelDefect:
        class_id = int(rng.integers(1, 5))
        low, high = self.settings.min_contrast, self.settings.max_contrast
        contrast = float(low * (high / low) ** rng.uniform())
        gain, mask = DEFECTS[class_id - 1](rng, contrast)
        return self._place(rng, slot, class_id, contrast, gain, mask)

    def _harmless(self, rng: np.random.Generator, slot: int) -> SteelDefect:
        gain = HARMLESS_MARKS[int(rng.integers(len(HARMLESS_MARKS)))](rng)
        return self._place(rng, slot, 0, 0.0, gain, np.zeros(gain.shape, np.bool_))

    def _place(
        self,
        rng: np.random.Generator,
        slot: int,
        class_id: int,
        contrast: float,
        gain: Field,
        mask: NDArray[np.bool_],
    ) -> SteelDefect:
        line = slot * _BLOCK_LINES + int(rng.integers(_BLOCK_LINES))
        # A mark may extend over an edge of the strip by a quarter of its width.
        hang = gain.shape[1] // 4
        room = max(1, self.settings.width_px - gain.shape[1] + 2 * hang)
        return SteelDefect(class_id, line, int(rng.integers(room)) - hang, contrast, gain, mask)

    def _overlap(
        self, mark: SteelDefect, first_line: int, line_count: int
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the indices of the common part: on the requested lines, and on the mark."""
        height, width = mark.gain.shape
        top = max(mark.first_line, first_line)
        bottom = min(mark.first_line + height, first_line + line_count)
        left = max(mark.first_px, 0)
        right = min(mark.first_px + width, self.settings.width_px)
        return (
            (slice(top - first_line, bottom - first_line), slice(left, right)),
            (
                slice(top - mark.first_line, bottom - mark.first_line),
                slice(left - mark.first_px, right - mark.first_px),
            ),
        )
