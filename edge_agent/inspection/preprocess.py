"""Preprocessing of a frame to network inputs, and assembly of tile outputs to a frame map.

numpy and OpenCV only: training, export, calibration and agent share it, so their inputs agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import MAX_TILES, Input, InputSpec
from edge_agent.frame import Image

_INTERPOLATION = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}


def resize(image: Image, spec: InputSpec) -> Image:
    """Convert an image to the channels and size of `spec`: uint8 (height, width, channels).

    `image` is uint8 (lines, pixels) or RGB (lines, pixels, 3). RGB becomes grey by ITU-R BT.601.
    The grey image is resized before it is repeated: three equal channels cost as much as one.
    """
    if image.ndim == 3 and spec.channels == 1:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if image.shape[:2] != (spec.height, spec.width):
        image = np.asarray(
            cv2.resize(
                image, (spec.width, spec.height), interpolation=_INTERPOLATION[spec.interpolation]
            ),
            dtype=np.uint8,
        )
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], spec.channels, axis=2)
    return image


def scale(resized: Image, spec: InputSpec) -> Input:
    """Scale the output of `resize`; return a batch of one: (1, height, width, channels)."""
    if spec.scaling == "network":
        return resized[None]
    x = resized[None].astype(np.float32)
    if spec.scaling == "unit":
        x *= np.float32(1 / 255)
    else:
        x -= x.mean()
        x /= max(float(x.std()), 1.0)
    return x


@dataclass(frozen=True, slots=True)
class Box:
    """Rectangle of a frame, in frame pixels."""

    first_line: int
    first_pixel: int
    lines: int
    pixels: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return the slices of the rectangle: lines, pixels."""
        return (
            slice(self.first_line, self.first_line + self.lines),
            slice(self.first_pixel, self.first_pixel + self.pixels),
        )


def tile_boxes(shape: tuple[int, int], spec: InputSpec) -> tuple[Box, ...]:
    """Return the tiles of a frame of `shape` (lines, pixels), row by row.

    Without tiling the only box is the whole frame. Otherwise the result has the fewest tiles that
    keep the minimum overlap, evenly distributed from edge to edge. Along a side where the frame is
    smaller than a tile there is one tile, of the frame's size.

    Raises ValueError for more than MAX_TILES.
    """
    tiles = spec.tiles
    if tiles is None:
        return (Box(0, 0, *shape),)
    rows = _count(shape[0], tiles.height_px, tiles.overlap_px)
    columns = _count(shape[1], tiles.width_px, tiles.overlap_px)
    if rows * columns > MAX_TILES:
        raise ValueError(
            f"{rows * columns} tiles for a frame of {shape[0]}x{shape[1]}, more than the limit of "
            f"{MAX_TILES}; train with larger tiles or less overlap"
        )
    lines, pixels = min(tiles.height_px, shape[0]), min(tiles.width_px, shape[1])
    return tuple(
        Box(line, pixel, lines, pixels)
        for line in _starts(shape[0] - lines, rows)
        for pixel in _starts(shape[1] - pixels, columns)
    )


def _count(length: int, tile: int, overlap: int) -> int:
    # Each tile after the first covers at most tile - overlap more; round the quotient up.
    return 1 if length <= tile else -((overlap - length) // (tile - overlap))


def _starts(last: int, count: int) -> list[int]:
    return [i * last // max(1, count - 1) for i in range(count)]


def inputs(image: Image, spec: InputSpec, boxes: Sequence[Box] | None = None) -> Iterator[Input]:
    """Yield the network's inputs one by one, each (1, height, width, channels).

    One input per box; the default is `tile_boxes`. Only one input is in memory at a time.
    """
    for box in tile_boxes((image.shape[0], image.shape[1]), spec) if boxes is None else boxes:
        yield scale(resize(image[box.slices], spec), spec)


def prepare(image: Image, spec: InputSpec) -> Input:
    """Return all `inputs` in one array: (tiles, height, width, channels); untiled (1, ...)."""
    boxes = tile_boxes((image.shape[0], image.shape[1]), spec)
    if len(boxes) == 1:
        return next(inputs(image, spec, boxes))
    shape = (len(boxes), spec.height, spec.width, spec.channels)
    x: Input = np.empty(shape, np.float32)
    if spec.scaling == "network":
        x = np.empty(shape, np.uint8)
    for index, one in enumerate(inputs(image, spec, boxes)):
        x[index] = one[0]
    return x


def stitch(
    maps: Sequence[NDArray[np.float32]] | NDArray[np.float32],
    shape: tuple[int, int],
    spec: InputSpec,
    boxes: Sequence[Box] | None = None,
) -> NDArray[np.float32]:
    """Combine probability maps to a frame map, float32 (lines, pixels, classes).

    Overlapping boxes contribute a weighted mean. A weight is the distance to the box's nearest
    edge along the frame times the distance across it: a network is least reliable at a tile's
    edge, and the result has no step where a tile ends. Between two tiles the result changes
    linearly from one to the other. The weights sum to 1 over the given boxes; pixels outside all
    boxes are 0. A map that contains a NaN makes its whole box NaN.

    Args:
        maps: float32 (n, h, w, classes), one map per box; each is resized to its box first.
        shape: Size of the frame (lines, pixels).
        spec: Input specification with the tiling.
        boxes: Positions of the maps; by default `tile_boxes`.

    Raises:
        ValueError: The number of maps differs from the number of boxes.
    """
    boxes = tile_boxes(shape, spec) if boxes is None else boxes
    if len(maps) != len(boxes) or not len(maps):
        raise ValueError(f"{len(maps)} maps for {len(boxes)} tiles")
    total = np.zeros(shape, np.float32)
    for box in boxes:
        total[box.slices] += _weight(box)
    # One contiguous plane per class, because callers read class by class.
    whole = np.zeros((maps[0].shape[2], *shape), np.float32)
    for box, tile in zip(boxes, maps, strict=True):
        # Divide before the sum: where only one tile lies, its weight is exactly 1.
        share = _weight(box) / total[box.slices]
        if np.isnan(tile).any():  # resizing to a smaller box can skip a NaN pixel
            share[:] = np.nan
        for index, plane in enumerate(whole):
            part = tile[:, :, index]
            if part.shape != share.shape:
                part = np.asarray(
                    cv2.resize(
                        np.ascontiguousarray(part),
                        share.shape[::-1],
                        interpolation=cv2.INTER_LINEAR,
                    )
                )
            plane[box.slices] += share * part
    return whole.transpose(1, 2, 0)


def _weight(box: Box) -> NDArray[np.float32]:
    """Return weights, float32 (lines, pixels): integers of at least 1, so that no NaN is lost."""
    along, across = (
        np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in (box.lines, box.pixels)
    )
    return np.asarray(np.outer(along, across), np.float32)
