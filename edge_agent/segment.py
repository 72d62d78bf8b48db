"""Second stage: probability maps of a suspect frame to regions with class, area, confidence."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent import rle
from edge_agent.bundle import RegionRule
from edge_agent.frame import ClassMap, Image, Region
from edge_agent.preprocess import InputSpec, prepare
from edge_agent.runtime import Choice


class Segmenter:
    def __init__(self, spec: InputSpec, choice: Choice, rule: RegionRule) -> None:
        self._spec, self._runtime, self._rule = spec, choice.runtime, rule

    def find(self, image: Image) -> tuple[Region, ...]:
        """`image` as in Frame. Raises what the runtime raises."""
        maps = self._runtime.run(prepare(image, self._spec))[0]
        return regions(maps, (image.shape[0], image.shape[1]), self._rule)


def regions(
    maps: NDArray[np.float32], shape: tuple[int, int], rule: RegionRule
) -> tuple[Region, ...]:
    """Connected defects in frame coordinates, largest first.

    `maps` is float32 (h, w, classes), probabilities; `shape` is the frame's (lines, pixels).
    The maps are brought to the frame's size first: edges then lie between network pixels.
    A pixel belongs to its most probable class, if that reaches `rule.min_probability`. Maps that
    hold a NaN are a ValueError: they must never pass as sound steel.
    """
    peak = float(maps.max())
    if math.isnan(peak):
        raise ValueError("the segmenter's output is not a number")
    if peak < rule.min_probability:
        return ()
    # One map at a time, and the whole stack only where something is: most of it is sound steel.
    full = np.asarray(cv2.resize(maps, shape[::-1], interpolation=cv2.INTER_LINEAR))
    full = full.reshape(*shape, maps.shape[2])
    best = full.max(axis=2)
    classes = np.where(best >= rule.min_probability, full.argmax(axis=2) + 1, 0).astype(np.uint8)
    found = []
    for class_id in np.unique(classes[classes > 0]).tolist():
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            (classes == class_id).astype(np.uint8), connectivity=8
        )
        for label in range(1, count):
            x, y, width, height, area = (int(v) for v in stats[label])
            if area < rule.min_area_px:
                continue
            mask = np.zeros(shape, np.bool_)
            box = np.s_[y : y + height, x : x + width]
            mask[box] = labels[box] == label
            found.append(
                Region(
                    class_id=class_id,
                    confidence=float(best[mask].mean()),
                    x_px=x,
                    y_px=y,
                    width_px=width,
                    height_px=height,
                    area_px=area,
                    rle=rle.encode(mask),
                )
            )
    return tuple(sorted(found, key=lambda r: -r.area_px))


def class_map(found: tuple[Region, ...], shape: tuple[int, int]) -> ClassMap:
    """The regions painted back: uint8 (lines, pixels), 0 sound, else the class id."""
    classes = np.zeros(shape, np.uint8)
    for region in found:
        classes[rle.decode(region.rle, shape)] = region.class_id
    return classes
