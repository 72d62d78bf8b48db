"""Near-duplicates: what is found, what is not, and that textures alone are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.frame import Image
from edge_agent.simulation.rolled_steel import SteelStrip
from workshop import near_duplicates
from workshop.datasets import SimulatedDataSet, open_dataset


def _texture(seed: int, shape: tuple[int, int] = (200, 240)) -> Image:
    """A rough surface with grain along it: each seed another piece of one material."""
    rng = np.random.default_rng(seed)
    rough = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 3)
    grain = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), sigmaX=2, sigmaY=15)
    surface = 110 + 25 * rough / rough.std() + 12 * grain / grain.std()
    return np.clip(surface, 0, 255).astype(np.uint8)


def _darker(image: Image) -> Image:
    fall_off = np.linspace(0.4, 0.9, image.shape[1])
    return (image * fall_off).astype(np.uint8)


def _jpeg(image: Image) -> Image:
    _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 50))
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


def _scratched(image: Image) -> Image:
    scratched = image.copy()
    cv2.line(scratched, (30, 5), (60, 190), 255, 6)
    return scratched


def _pasted(image: Image) -> Image:
    pasted = image.copy()
    pasted[:, : image.shape[1] // 3] = _texture(999)[:, : image.shape[1] // 3]
    return pasted


CHANGES: dict[str, Callable[[Image], Image]] = {
    "another light": _darker,
    "compressed": _jpeg,
    "smaller": lambda image: np.asarray(cv2.resize(image, (160, 150)), np.uint8),
    "in colour": lambda image: np.dstack([image] * 3),
    "scratched": _scratched,
    "partly something else": _pasted,
    "upside down": lambda image: image[::-1, ::-1],
    "mirrored": lambda image: image[:, ::-1],
    "turned by 90 degrees": np.rot90,
    "turned by 270 degrees": lambda image: np.rot90(image, 3),
    "transposed": lambda image: image.T,
}


def _prints(*images: Image) -> NDArray[np.complex64]:
    return np.stack([near_duplicates.fingerprint(np.ascontiguousarray(image)) for image in images])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_same_piece_again_is_found(change: Callable[[Image], Image]) -> None:
    others = [_texture(seed) for seed in range(1, 30)]
    pairs = near_duplicates.near_duplicates(_prints(_texture(0), *others, change(_texture(0))))
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 30)]
    assert 0.25 <= pairs[0].likeness <= 1


def test_overlapping_cuts_are_found() -> None:
    long = _texture(5, (200, 300))
    pairs = near_duplicates.near_duplicates(_prints(long[:, :240], _texture(6), long[:, 40:280]))
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 2)]


def test_textures_and_stripes_that_look_alike_are_none() -> None:
    x = np.arange(240)
    stripes = [
        np.tile(120 + 60 * np.sin(x / 4 + phase), (200, 1)) + _texture(seed) * 0.1
        for seed, phase in enumerate((0, 1, 2, 3), 100)
    ]
    images = [_texture(seed) for seed in range(60)]
    images += [np.clip(image, 0, 255).astype(np.uint8) for image in stripes]
    assert near_duplicates.near_duplicates(_prints(*images)) == ()


def test_strong_marks_of_one_kind_do_not_make_frames_one() -> None:
    """Frames whose few strong marks decide, if relief is not weighed by the relief around it."""
    frames = [(1_002, 48), (1_005, 11), (1_005, 40), (1_002, 16), (1_002, 31), (1_004, 96)]
    images = [SteelStrip(seed).render(256 * frame, 256) for seed, frame in frames]
    assert near_duplicates.near_duplicates(_prints(*images)) == ()


def test_frames_of_a_strip_are_none() -> None:
    dataset = SimulatedDataSet([1_000, 1_001], 60)
    assert len(np.unique(near_duplicates.groups(dataset, progress=False))) == len(dataset.samples)


def test_images_without_relief_are_none_but_the_same_file_is_one() -> None:
    flat = [np.full((40, 60), level, np.uint8) for level in (0, 0, 90, 255)]
    pairs = near_duplicates.near_duplicates(_prints(*flat))
    assert pairs == ()
    numbers = near_duplicates.group_numbers(4, pairs, ("x", "x", "y", None))
    assert numbers.tolist() == [0, 0, 1, 2]
    assert near_duplicates.group_numbers(2, (), (None, None)).tolist() == [0, 1]


def test_links_make_groups() -> None:
    pairs = (
        near_duplicates.Pair(1, 4, 0.9),
        near_duplicates.Pair(0, 2, 0.9),
        near_duplicates.Pair(2, 4, 0.9),
    )
    numbers = near_duplicates.group_numbers(6, pairs, ("a", "b", "c", "d", "e", "d"))
    assert numbers.tolist() == [0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("count", [0, 1, 1_200])
def test_many_pictures_of_one_thing_are_one_group(count: int) -> None:
    """More than a block of the matrix, and as many pairs as it takes."""
    pairs = near_duplicates.near_duplicates(np.repeat(_prints(_texture(0)), count, axis=0))
    assert len(pairs) == max(0, count - 1)
    assert set(near_duplicates.group_numbers(count, pairs, (None,) * count).tolist()) <= {0}


def test_pairs_between_blocks_are_found() -> None:
    rng = np.random.default_rng(0)
    shape = near_duplicates.empty_prints(1_100).shape
    noise = rng.standard_normal((*shape, 2)).astype(np.float32) @ np.array([1, 1j], np.complex64)
    noise[1_090], noise[1_050] = noise[3], noise[1_030]
    pairs = near_duplicates.near_duplicates(noise)
    assert sorted((p.first, p.second) for p in pairs) == [(3, 1_090), (1_030, 1_050)]


def test_tiles_taken_at_several_exposures_are_grouped(shared_data: Path) -> None:
    """A tile's pictures have near file numbers; groups of far ones were all looked at."""
    dataset = open_dataset(shared_data / "magnetic_tile")
    numbers = near_duplicates.groups(dataset, progress=False)
    shot = np.array([int(re.findall(r"\d+", s.name)[1]) for s in dataset.samples])
    near = np.triu(np.abs(shot[:, None] - shot) <= 40, 1)
    together = numbers[:, None] == numbers
    assert together[near].mean() > 0.9
    far = np.triu(np.abs(shot[:, None] - shot) > 20_000, 1)
    assert not together[far].any()


def test_turned_copies_of_steel_images_are_grouped(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "neu_seg")
    numbers = near_duplicates.groups(dataset, progress=False)
    of = {s.name: int(n) for s, n in zip(dataset.samples, numbers, strict=True)}
    for one, other in (
        ("001332.jpg", "003072.jpg"),  # upside down
        ("002302.jpg", "003172.jpg"),  # by 90 degrees
        ("001199.jpg", "001201.jpg"),  # overlapping cuts
        ("001777.jpg", "003997.jpg"),  # a scratch pasted on
    ):
        assert of[one] == of[other]
    # Bright stripes, both, and that is all.
    assert of["000650.jpg"] != of["000654.jpg"]
