"""Pictures of the demo: defects drawn on their frames, frames on a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.frame import ClassMap, Image
from edge_agent.inspection import rle
from edge_agent.messages.events import DefectEvent
from workshop.report.pictures import colour as class_colour

Picture = NDArray[np.uint8]
"""BGR, uint8, shape (lines, pixels, 3): what OpenCV writes."""

_TRUTH = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def annotate(image: Image, event: DefectEvent | None, truth: ClassMap) -> Picture:
    """Return the frame, brightened, with defects tinted and labelled, and the truth outlined."""
    picture = _bright(image)
    for defect in event.defects if event else ():
        colour = _bgr(defect.class_id)
        mask = rle.decode(defect.mask.runs, (defect.mask.lines, defect.mask.pixels))
        picture[mask] = (0.55 * picture[mask] + 0.45 * np.array(colour)).astype(np.uint8)
    outlines, _ = cv2.findContours(
        (truth > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, outlines, -1, _TRUTH, 1)
    for defect in event.defects if event else ():
        colour = _bgr(defect.class_id)
        box = defect.box_px
        cv2.rectangle(
            picture, (box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1), colour, 2
        )
        _text(
            picture,
            f"{defect.class_name} {defect.confidence:.2f}",
            (box.x, box.y - 8 if box.y > 32 else box.y + box.height + 26),
            colour,
            scale=0.85,
        )
    return picture


def sheet(groups: Sequence[tuple[str, Sequence[tuple[str, Picture]]]], columns: int = 2) -> Picture:
    """Return a contact sheet: each group a heading and its captioned pictures at half size."""
    rows: list[Picture] = []
    cell = (800, 128)
    for heading, items in groups:
        bar = np.full((36, columns * cell[0], 3), 48, np.uint8)
        _text(bar, heading, (8, 25), _TRUTH)
        rows.append(bar)
        for start in range(0, len(items), columns):
            cells = [_cell(caption, p, cell) for caption, p in items[start : start + columns]]
            while len(cells) < columns:
                cells.append(np.zeros((cell[1] + 22, cell[0], 3), np.uint8))
            rows.append(np.hstack(cells))
    return np.vstack(rows)


def _cell(caption: str, picture: Picture, size: tuple[int, int]) -> Picture:
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    bar = np.zeros((22, size[0], 3), np.uint8)
    _text(bar, caption, (4, 16), (200, 200, 200), scale=0.45)
    return np.vstack([bar, np.asarray(small, np.uint8)])


def _bgr(class_id: int) -> tuple[int, int, int]:
    red, green, blue = class_colour(class_id)
    return blue, green, red


def _bright(image: Image) -> Picture:
    """Return the frame with its contrast stretched, so that faint defects are visible."""
    low, high = np.percentile(image, (0.5, 99.5))
    wide = np.clip((image.astype(np.float32) - low) / max(high - low, 1) * 220, 0, 255)
    grey = wide.astype(np.uint8)
    if grey.ndim == 2:
        return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    return np.ascontiguousarray(grey[:, :, ::-1])


def _text(
    picture: Picture,
    text: str,
    at: tuple[int, int],
    colour: tuple[int, int, int],
    scale: float = 0.55,
) -> None:
    weight = 2 if scale > 0.7 else 1
    cv2.putText(picture, text, at, _FONT, scale, (0, 0, 0), weight + 2, cv2.LINE_AA)
    cv2.putText(picture, text, at, _FONT, scale, colour, weight, cv2.LINE_AA)
