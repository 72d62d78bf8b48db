"""Segmenter, the second stage: regions of a suspect frame with class, area and confidence.

With tiles, only the gate's suspect tiles are run if both stages use the same tiles.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import InputSpec, RegionRule
from edge_agent.frame import ClassMap, Image, Region
from edge_agent.inspection import rle
from edge_agent.inspection.preprocess import Box, inputs, stitch, tile_boxes
from edge_agent.inspection.runtime import ChosenArtifact


class Segmenter:
    """Segmenter stage of a bundle: locates defects with the chosen artifact."""

    def __init__(self, spec: InputSpec, choice: ChosenArtifact, rule: RegionRule) -> None:
        self._spec, self._runtime, self._rule = spec, choice.runtime, rule

    def find(self, image: Image, suspect_tiles: tuple[Box, ...] = ()) -> tuple[Region, ...]:
        """Find the defects of an image; re-raises the runtime's exceptions.

        If all suspect tiles are tiles of this stage too, only those are run: the rest is
        defect-free steel, except where a suspect tile overlaps it. In such an overlap the suspect
        tile's output counts in full, because the other tile was not run. If the gate uses other
        tiles, or none are given, all tiles are run.

        Args:
            image: Image as in `Frame`.
            suspect_tiles: Suspect tiles as in `GateDecision`.
        """
        shape = (image.shape[0], image.shape[1])
        boxes = tile_boxes(shape, self._spec)
        if suspect_tiles and set(suspect_tiles) <= set(boxes):
            boxes = suspect_tiles
        maps = [self._runtime.run(x)[0] for x in inputs(image, self._spec, boxes)]
        if self._spec.tiles is None:
            # `regions` resizes only the classes that are present to the frame's size.
            return regions(maps[0], shape, self._rule)
        return regions(stitch(maps, shape, self._spec, boxes), shape, self._rule)


def regions(
    maps: NDArray[np.float32], shape: tuple[int, int], rule: RegionRule
) -> tuple[Region, ...]:
    """Return the connected defects in frame coordinates, largest first.

    The maps are resized to the frame first, so that edges lie between network pixels. A pixel
    belongs to its most probable class if that reaches `rule.min_probability`.

    Args:
        maps: Probabilities, float32 (h, w, classes).
        shape: Size of the frame (lines, pixels).
        rule: Minimum probability and minimum area of a region.

    Raises:
        ValueError: The maps contain a NaN, which must never pass as defect-free steel.
    """
    if np.isnan(maps).any():
        raise ValueError("the segmenter's output is not a number")
    best, classes = best_class(maps, shape, rule.min_probability)
    found = []
    for class_id in (np.flatnonzero(np.bincount(classes.ravel())[1:]) + 1).tolist():
        of_class = (classes == class_id).view(np.uint8)
        # Only the part that holds the class: the statistics cost a millisecond for a whole frame.
        left, top, width, height = cv2.boundingRect(of_class)
        part = of_class[top : top + height, left : left + width]
        _, labels, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
        for label, (column, row, width, height, area) in enumerate(stats.tolist()):
            if label == 0 or area < rule.min_area_px:
                continue
            mask = labels[row : row + height, column : column + width] == label
            x, y = left + column, top + row
            box = np.s_[y : y + height, x : x + width]
            found.append(
                Region(
                    class_id=class_id,
                    confidence=float(best[box][mask].mean()),
                    x_px=x,
                    y_px=y,
                    width_px=width,
                    height_px=height,
                    area_px=area,
                    rle=rle.encode(mask, (y, x), shape[0]),
                )
            )
    return tuple(sorted(found, key=lambda r: -r.area_px))


def best_class(
    maps: NDArray[np.float32], shape: tuple[int, int], least: float
) -> tuple[NDArray[np.float32], ClassMap]:
    """Return each frame pixel's highest probability and its class, 0 below `least`.

    Only maps that reach `least` somewhere are resized: bilinear interpolation cannot raise a
    maximum, and most frames have one or two classes.
    """
    best = np.full(shape, np.float32(least), np.float32)
    classes = np.zeros(shape, np.uint8)
    for index in range(maps.shape[2]):
        plane = np.ascontiguousarray(maps[:, :, index])
        if float(plane.max()) < least:
            continue
        full = plane
        if plane.shape != shape:
            full = np.asarray(cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_LINEAR))
        # On equal probability the first class wins; `least` itself is sufficient.
        wins = (full > best) | ((full == best) & (classes == 0))
        np.copyto(best, full, where=wins)
        classes[wins] = index + 1
    return best, classes


def class_map(found: tuple[Region, ...], shape: tuple[int, int]) -> ClassMap:
    """Return the regions as a class map: uint8 (lines, pixels), 0 defect-free, else class id."""
    classes = np.zeros(shape, np.uint8)
    for region in found:
        classes[rle.decode(region.rle, shape)] = region.class_id
    return classes
