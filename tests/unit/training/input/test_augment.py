"""Changes to an image: mask and image move together, the same draw gives the same picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import Augment
from training.input.augment import augment, pasted

NOTHING = Augment(flip_along=False, flip_across=False, brightness=0, contrast=0, shift=0)


def _marked(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Grey 48x64 with six class squares that are bright where the class covers."""
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 90, (48, 64, 1)).astype(np.uint8)
    cover = np.zeros((48, 64, 6), np.uint8)
    for k in range(6):
        y, x = int(rng.integers(8, 30)), int(rng.integers(8, 46))
        cover[y : y + 10, x : x + 10, k] = 255
    image[cover.any(axis=2)] = 220
    return image, cover


def test_all_off_changes_nothing() -> None:
    image, cover = _marked()
    changed, moved = augment(image, cover, NOTHING, np.random.default_rng(1))
    assert np.array_equal(changed, image)
    assert np.array_equal(moved, cover)


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_cover_stays_on_what_it_covers(seed: int) -> None:
    image, cover = _marked(seed)
    how = Augment(brightness=0, contrast=0, shift=0.1, zoom=0.2)
    changed, moved = augment(image, cover, how, np.random.default_rng(seed))
    assert changed.shape == image.shape
    assert moved.shape == cover.shape
    assert changed.dtype == moved.dtype == np.uint8
    bright, covered = changed[..., 0] > 190, moved.max(axis=2) > 250
    # Interpolation blurs one pixel at an edge, no more.
    assert (bright | ~covered).mean() > 0.995
    again = augment(image, cover, how, np.random.default_rng(seed))
    assert np.array_equal(changed, again[0])
    assert np.array_equal(moved, again[1])


@pytest.mark.parametrize(
    ("on", "same"),
    [
        ({"flip_along": True}, lambda a, b: np.array_equal(a, b) or np.array_equal(a, b[::-1])),
        ({"flip_across": True}, lambda a, b: np.array_equal(a, b) or np.array_equal(a, b[:, ::-1])),
    ],
)
def test_each_flip_is_a_flip_and_happens_about_half_the_time(on: dict, same: object) -> None:
    image, cover = _marked()
    how = Augment(
        **{"flip_along": False, "flip_across": False, "brightness": 0, "contrast": 0}
        | {"shift": 0}
        | on
    )
    changed = [augment(image, cover, how, np.random.default_rng(k))[0] for k in range(60)]
    assert all(same(one, image) for one in changed)  # type: ignore[operator]
    assert 15 < sum(np.array_equal(one, image) for one in changed) < 45


def test_brightness_and_contrast_stay_within_what_was_asked() -> None:
    image = np.full((16, 16, 1), 100, np.uint8)
    cover = np.zeros((16, 16, 1), np.uint8)
    how = Augment(flip_along=False, flip_across=False, brightness=0.25, contrast=0, shift=0)
    seen = [
        int(augment(image, cover, how, np.random.default_rng(k))[0][0, 0, 0]) for k in range(200)
    ]
    assert 80 <= min(seen) < 85
    assert 120 < max(seen) <= 125


def test_a_pasted_defect_comes_with_its_cover_and_hides_what_was_below() -> None:
    donor, donor_cover = _marked(1)
    image = np.full((48, 64, 1), 40, np.uint8)
    cover = np.zeros_like(donor_cover)
    cover[..., 0] = 255
    mixed, both = pasted(image, cover, donor, donor_cover, np.random.default_rng(0))
    new = both[..., 1:].max(axis=2) > 0
    assert new.any()
    assert mixed[..., 0][new].mean() > mixed[..., 0][~new].mean()
    only_others = new & (both[..., 0] < 255)
    assert (both[..., 0][only_others] == 0).all()
    clean = np.zeros_like(donor_cover)
    assert pasted(image, cover, donor, clean, np.random.default_rng(0))[0] is image
