"""Types of the inspection report; `edge-train inspect --json` prints them."""

from __future__ import annotations

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """Distribution of numbers: smallest, percentiles, largest."""

    count: int
    smallest: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    largest: float


class ClassCounts(msgspec.Struct, frozen=True):
    """Counts and areas of one defect class. A defect is a connected area of a mask (8 neighbours).

    `images` have the class, and `drawn` of them have a mask of it; `per_image` is the number of
    defects on those. `area_share` is the area of a defect over that of the image. `areas_log2[k]`
    counts defects of 2^k px or more and less than 2^(k+1) px.
    """

    class_id: int
    name: str
    images: int
    drawn: int
    defects: int
    per_image: Spread | None
    area_px: Spread | None
    area_share: Spread | None
    areas_log2: tuple[int, ...]


class Size(msgspec.Struct, frozen=True):
    """Image size, with the number of images that have it."""

    width_px: int
    height_px: int
    images: int


class NearPair(msgspec.Struct, frozen=True):
    """Pair of near-duplicates; `likeness` is 0.25 to 1, see `workshop.near_duplicates`."""

    first: str
    second: str
    likeness: float


class DataReport(msgspec.Struct, frozen=True):
    """Report on a data set; its lists hold names of samples.

    `imbalance` is the ratio of images between the largest and the smallest class, None if a class
    has no image. `undrawn` are defective images without a mask, `drawn_on_defect_free` the
    opposite. `mask_errors` and `unreadable` hold one message each. `near_duplicates` links each
    group with the fewest pairs. `groups` counts the sets of two or more identical or
    near-duplicate images, `grouped_images` the images in them. `across_parts` are the groups with
    images in more than one part of the split. `parts` counts images by part and class
    ("defect_free" is one), `unused` those in no part.
    """

    name: str
    images: int
    defect_free: int
    defective: int
    imbalance: float | None
    width_px: Spread | None
    height_px: Spread | None
    sizes: tuple[Size, ...]
    classes: tuple[ClassCounts, ...]
    defects_per_image: Spread | None
    undrawn: tuple[str, ...]
    drawn_on_defect_free: tuple[str, ...]
    mask_errors: tuple[str, ...]
    unreadable: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[NearPair, ...]
    groups: int
    grouped_images: int
    across_parts: tuple[tuple[str, ...], ...]
    parts: dict[str, dict[str, int]] | None
    unused: int
