"""From a camera's frame to a network's input."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.camera.folder import read_image
from edge_agent.frame import Image
from edge_agent.preprocess import GATE_INPUT, SEGMENTER_INPUT, InputSpec, prepare, resize, scale

IMAGES = st.one_of(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
)
SPECS = st.builds(
    InputSpec,
    height=st.integers(1, 32),
    width=st.integers(1, 32),
    channels=st.sampled_from((1, 3)),
    scaling=st.sampled_from(("unit", "standardise")),
    interpolation=st.sampled_from(("area", "linear")),
)


def _noise(*shape: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_the_seeds_inputs() -> None:
    assert (GATE_INPUT.height, GATE_INPUT.width, GATE_INPUT.channels) == (256, 256, 3)
    assert GATE_INPUT.scaling == "unit"
    assert (SEGMENTER_INPUT.height, SEGMENTER_INPUT.width) == (256, 256)
    assert (SEGMENTER_INPUT.channels, SEGMENTER_INPUT.scaling) == (1, "standardise")


@pytest.mark.parametrize("shape", [(256, 1600), (256, 1600, 3), (256, 256), (4096, 256), (31, 7)])
@pytest.mark.parametrize("spec", [GATE_INPUT, SEGMENTER_INPUT])
def test_any_frame_becomes_a_batch_of_one(shape: tuple[int, ...], spec: InputSpec) -> None:
    x = prepare(_noise(*shape), spec)
    assert x.shape == (1, 256, 256, spec.channels)
    assert x.dtype == np.float32


def test_gate_keeps_rgb_order_and_divides_by_255() -> None:
    image = np.broadcast_to(np.array([10, 20, 255], np.uint8), (300, 500, 3)).copy()
    x = prepare(image, GATE_INPUT)
    for channel, value in enumerate((10 / 255, 20 / 255, 1.0)):
        np.testing.assert_allclose(x[..., channel], value, rtol=1e-6)


def test_gate_repeats_grey_in_three_channels() -> None:
    x = prepare(_noise(256, 1600), GATE_INPUT)
    np.testing.assert_array_equal(x[..., 0], x[..., 1])
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    assert x.min() >= 0
    assert x.max() <= 1


def test_segmenter_standardises_each_image_by_itself() -> None:
    # Two brightnesses and two contrasts of one texture: the same input.
    texture = _noise(256, 256) // 4
    x = prepare(texture, SEGMENTER_INPUT)
    assert abs(float(x.mean())) < 1e-4
    assert float(x.std()) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(prepare(texture * 2 + 60, SEGMENTER_INPUT), x, atol=1e-4)


@pytest.mark.parametrize("value", [0, 93, 255])
@pytest.mark.parametrize("shape", [(256, 1600), (256, 1600, 3)])
def test_a_flat_image_stays_finite(value: int, shape: tuple[int, ...]) -> None:
    x = prepare(np.full(shape, value, np.uint8), SEGMENTER_INPUT)
    np.testing.assert_allclose(x, 0, atol=1e-4)


def test_noise_below_a_grey_level_is_not_blown_up() -> None:
    image = np.full((256, 256), 100, np.uint8)
    image[::2] = 101
    x = prepare(image, SEGMENTER_INPUT)
    np.testing.assert_allclose(np.abs(x), 0.5, atol=1e-4)


@pytest.mark.parametrize(
    ("rgb", "grey"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((9, 9, 9), 9)]
)
def test_grey_is_bt601(rgb: tuple[int, int, int], grey: int) -> None:
    image = np.broadcast_to(np.array(rgb, np.uint8), (256, 256, 3)).copy()
    assert np.unique(resize(image, SEGMENTER_INPUT)).tolist() == [grey]


@pytest.mark.parametrize("spec", [GATE_INPUT, SEGMENTER_INPUT])
def test_grey_and_rgb_of_the_same_picture_are_the_same_input(spec: InputSpec) -> None:
    grey = _noise(256, 800)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(prepare(grey, spec), prepare(rgb, spec))


def test_area_is_the_mean_of_the_pixels_it_covers() -> None:
    image = _noise(512, 1024)
    means = image.reshape(256, 2, 256, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, SEGMENTER_INPUT)[:, :, 0], means, atol=0.51)


def test_lines_stay_lines_and_pixels_stay_pixels() -> None:
    image = np.zeros((64, 512), np.uint8)
    image[:32] = 200  # the upper half of the frame
    small = resize(image, SEGMENTER_INPUT)[:, :, 0]
    assert small[:120].min() == 200
    assert small[136:].max() == 0


@pytest.mark.parametrize("interpolation", ["area", "linear"])
def test_a_frame_of_the_right_size_is_not_resampled(
    interpolation: Literal["area", "linear"],
) -> None:
    spec = msgspec.structs.replace(SEGMENTER_INPUT, interpolation=interpolation)
    image = _noise(256, 256)
    np.testing.assert_array_equal(resize(image, spec)[:, :, 0], image)


def test_interpolation_is_obeyed() -> None:
    # One bright pixel in four by four: its area counts, or it is passed by.
    image = np.zeros((1024, 1024), np.uint8)
    image[::4, ::4] = 160
    linear = msgspec.structs.replace(SEGMENTER_INPUT, interpolation="linear")
    assert np.unique(resize(image, SEGMENTER_INPUT)).tolist() == [10]
    assert np.unique(resize(image, linear)).tolist() == [0]


@pytest.mark.parametrize("spec", [GATE_INPUT, SEGMENTER_INPUT])
@pytest.mark.parametrize("shape", [(256, 256), (256, 256, 3), (256, 1600)])
def test_the_frame_is_not_written_to(spec: InputSpec, shape: tuple[int, ...]) -> None:
    image = _noise(*shape)
    before = image.copy()
    x = prepare(image, spec)
    x[:] = 0
    np.testing.assert_array_equal(image, before)


@given(image=IMAGES, spec=SPECS)
@settings(deadline=None)
def test_any_picture_fits_any_input(image: Image, spec: InputSpec) -> None:
    resized = resize(image, spec)
    assert resized.shape == (spec.height, spec.width, spec.channels)
    assert resized.dtype == np.uint8
    assert int(image.min()) <= int(resized.min()) + 1  # grey's weights round
    assert int(resized.max()) <= int(image.max()) + 1
    x = scale(resized, spec)
    assert x.shape == (1, *resized.shape)
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(prepare(image, spec), x)


def test_real_frames(shared_data: Path) -> None:
    paths = sorted((shared_data / "severstal" / "train_images").glob("*.jpg"))[:3]
    if not paths:
        pytest.skip("the Severstal images are not beside this repository")
    for path in paths:
        image = read_image(path)
        gate, segmenter = prepare(image, GATE_INPUT), prepare(image, SEGMENTER_INPUT)
        assert gate.min() >= 0
        assert gate.max() <= 1
        assert float(segmenter.std()) == pytest.approx(1, abs=1e-3)
        # Dark steel stays darker than the mean in both.
        dark = gate[0, :, :, 0] < gate.mean() - 0.1
        assert dark.any()
        assert segmenter[0, :, :, 0][dark].max() < 0
