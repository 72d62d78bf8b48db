"""What the inspection of a data set found. Types only; as JSON they are the `--json` report."""

from __future__ import annotations

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """How numbers are spread: smallest, percentiles, largest."""

    count: int
    smallest: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    largest: float


class ClassCounts(msgspec.Struct, frozen=True):
    """Of a defect class. A defect is a connected part of a mask (corners touch).

    `images` have the class; on `drawn` of them it is drawn. `per_image` is defects on those;
    `area_share` an area over the image's. `areas_log2[k]` counts defects of 2^k px up to 2^(k+1).
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
    width_px: int
    height_px: int
    images: int


class NearPair(msgspec.Struct, frozen=True):
    """Two names, and how alike the images are (0.25 to 1, see `workshop.near_duplicates`)."""

    first: str
    second: str
    likeness: float


class DataReport(msgspec.Struct, frozen=True):
    """Lists hold names of samples.

    `imbalance` is images of the largest class over those of the smallest, None where a class has
    none. `undrawn`: defective, but with nothing drawn; `drawn_on_defect_free` the opposite.
    `mask_errors` and `unreadable` say why, one line each. `near_duplicates` are as many pairs as
    link all that belong together; `groups` counts sets of two images and more that show the same
    thing, `grouped_images` the images in them. `across_parts` are the groups that a given split
    tears apart; `parts` are images by part and class ("defect_free" is one) and `unused` those in
    none.
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
