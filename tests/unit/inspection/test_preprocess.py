"""From a camera's frame to a network's input."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.bundle.manifest import GATE_INPUT, MAX_TILES, SEGMENTER_INPUT, InputSpec, Tiles
from edge_agent.frame import Image
from edge_agent.image_files import read_image
from edge_agent.inspection.preprocess import Box, inputs, prepare, resize, scale, stitch, tile_boxes

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


def _tiled(height_px: int, width_px: int, overlap_px: int, size: int = 8) -> InputSpec:
    """A small input of a network that sees tiles."""
    return InputSpec(
        height=size,
        width=size,
        channels=1,
        scaling="unit",
        tiles=Tiles(height_px=height_px, width_px=width_px, overlap_px=overlap_px),
    )


@st.composite
def _cuts(draw: st.DrawFn) -> tuple[tuple[int, int], InputSpec]:
    """A frame's shape and tiles for it, not too many."""
    shape = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    height, width = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    overlap = draw(st.integers(0, min(height, width) - 1))
    assume(shape[0] * shape[1] <= MAX_TILES * (height - overlap) * (width - overlap) / 2)
    return shape, _tiled(height, width, overlap)


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


# Tiles.


def test_a_strip_frame_is_seven_tiles() -> None:
    boxes = tile_boxes((256, 1600), _tiled(256, 256, 32))
    assert [box.first_pixel for box in boxes] == [0, 224, 448, 672, 896, 1120, 1344]
    assert {(box.first_line, box.lines, box.pixels) for box in boxes} == {(0, 256, 256)}


def test_tiles_come_row_by_row() -> None:
    boxes = tile_boxes((6, 7), _tiled(4, 4, 1))
    assert boxes == (Box(0, 0, 4, 4), Box(0, 3, 4, 4), Box(2, 0, 4, 4), Box(2, 3, 4, 4))


def test_without_tiles_there_is_the_frame() -> None:
    assert tile_boxes((256, 1600), GATE_INPUT) == (Box(0, 0, 256, 1600),)


@given(cut=_cuts())
@settings(deadline=None)
def test_the_fewest_tiles_from_edge_to_edge_with_the_overlap(
    cut: tuple[tuple[int, int], InputSpec],
) -> None:
    shape, spec = cut
    assert spec.tiles is not None
    boxes = tile_boxes(shape, spec)
    sides = (
        (shape[0], spec.tiles.height_px, {(b.first_line, b.lines) for b in boxes}),
        (shape[1], spec.tiles.width_px, {(b.first_pixel, b.pixels) for b in boxes}),
    )
    for length, tile, pieces in sides:
        starts = sorted(start for start, _ in pieces)
        assert {size for _, size in pieces} == {min(tile, length)}
        assert starts[0] == 0
        assert starts[-1] + min(tile, length) == length
        steps = np.diff(starts)
        assert (tile - steps >= spec.tiles.overlap_px).all()
        assert steps.size == 0 or np.ptp(steps) <= 1
        # One less would not reach from edge to edge.
        fewer = len(starts) - 1
        assert fewer == 0 or fewer * tile - (fewer - 1) * spec.tiles.overlap_px < length
    assert len(boxes) == len(sides[0][2]) * len(sides[1][2]) == len(set(boxes))


def test_too_many_tiles_are_refused_before_they_are_made() -> None:
    assert len(tile_boxes((32, 32), _tiled(1, 1, 0))) == MAX_TILES
    with pytest.raises(ValueError, match=r"1056 tiles for a frame of 32x33.* limit of 1024"):
        tile_boxes((32, 33), _tiled(1, 1, 0))
    with pytest.raises(ValueError, match="limit of 1024"):
        tile_boxes((1 << 40, 1 << 40), _tiled(256, 256, 255))


@pytest.mark.parametrize(
    ("height_px", "width_px", "overlap_px", "named"),
    [
        (0, 4, 0, "height_px"),
        (4, 0, 0, "width_px"),
        (4, 4, -1, "overlap_px"),
        (4, 8, 4, "overlap_px 4"),
        (8, 4, 4, "overlap_px 4"),
    ],
)
def test_tiles_that_cannot_be(height_px: int, width_px: int, overlap_px: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Tiles(height_px=height_px, width_px=width_px, overlap_px=overlap_px)
    written = f'{{"height_px":{height_px},"width_px":{width_px},"overlap_px":{overlap_px}}}'
    with pytest.raises(msgspec.ValidationError, match=named):
        msgspec.json.decode(written, type=Tiles)


def test_a_spec_without_tiles_is_written_as_it_always_was() -> None:
    written = (
        b'{"height":256,"width":256,"channels":1,"scaling":"standardise","interpolation":"area"}'
    )
    assert msgspec.json.encode(SEGMENTER_INPUT) == written
    assert msgspec.json.decode(written, type=InputSpec) == SEGMENTER_INPUT
    tiled = msgspec.structs.replace(SEGMENTER_INPUT, tiles=_tiled(256, 256, 32).tiles)
    assert (
        msgspec.json.decode(msgspec.json.encode(tiled), type=InputSpec)
        == tiled
        != (SEGMENTER_INPUT)
    )


@pytest.mark.parametrize("scaling", ["unit", "standardise"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(30, 70), (30, 70, 3), (9, 70), (5, 5)])
def test_each_tile_is_prepared_as_if_it_were_the_frame(
    shape: tuple[int, ...],
    channels: Literal[1, 3],
    scaling: Literal["unit", "standardise"],
) -> None:
    spec = msgspec.structs.replace(_tiled(16, 16, 4), channels=channels, scaling=scaling)
    image = _noise(*shape)
    image[:, : shape[1] // 2] //= 4  # one half is darker and has less contrast
    x = prepare(image, spec)
    boxes = tile_boxes((shape[0], shape[1]), spec)
    assert x.shape == (len(boxes), 8, 8, channels)
    assert x.dtype == np.float32
    for one, box in zip(x, boxes, strict=True):
        piece = image[box.slices].copy()
        alone = prepare(piece, msgspec.structs.replace(spec, tiles=None))
        np.testing.assert_array_equal(one, alone[0])
    some = list(inputs(image, spec, boxes[1::2]))
    assert len(some) == len(boxes) // 2
    for given_, index in zip(some, range(1, len(boxes), 2), strict=True):
        np.testing.assert_array_equal(given_[0], x[index])


@given(cut=_cuts(), classes=st.integers(1, 3), value=st.floats(2**-20, 1, width=32))
@settings(deadline=None)
def test_weights_sum_to_one_everywhere(
    cut: tuple[tuple[int, int], InputSpec], classes: int, value: float
) -> None:
    shape, spec = cut
    maps = np.full((len(tile_boxes(shape, spec)), 8, 8, classes), value, np.float32)
    whole = stitch(maps, shape, spec)
    assert whole.shape == (*shape, classes)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, value, rtol=1e-5)


@given(cut=_cuts(), data=st.data())
@settings(deadline=None)
def test_what_was_cut_is_put_back_where_it_was(
    cut: tuple[tuple[int, int], InputSpec], data: st.DataObject
) -> None:
    shape, spec = cut
    boxes = tile_boxes(shape, spec)
    some = data.draw(st.lists(st.sampled_from(boxes), min_size=1, unique=True))
    image = np.random.default_rng(0).random((*shape, 2), np.float32)
    whole = stitch([image[box.slices] for box in some], shape, spec, some)
    given_ = np.zeros(shape, bool)
    for box in some:
        given_[box.slices] = True
    np.testing.assert_allclose(whole[given_], image[given_], rtol=1e-5)
    assert not whole[~given_].any()


def test_from_one_tile_to_the_next_in_equal_steps() -> None:
    spec = _tiled(10, 10, 4)
    maps = np.zeros((2, 10, 10, 1), np.float32)
    maps[1] = 1
    line = stitch(maps, (10, 16), spec)[5, :, 0]
    np.testing.assert_allclose(line, [0] * 6 + [0.2, 0.4, 0.6, 0.8] + [1] * 6, atol=1e-6)
    # The one that is alone speaks for all of its own.
    alone = stitch(maps[1:], (10, 16), spec, tile_boxes((10, 16), spec)[1:])[5, :, 0]
    assert alone.tolist() == [0] * 6 + [1] * 10


def test_maps_are_brought_to_the_size_of_their_tile() -> None:
    maps = np.zeros((2, 4, 4, 1), np.float32)
    maps[1, 2:, 2:] = 1  # the lower right quarter of the second tile
    whole = stitch(maps, (32, 60), _tiled(32, 32, 4))[:, :, 0]
    assert whole[20:, 48:].min() == 1
    assert whole[:12].max() == whole[:, :40].max() == 0


@pytest.mark.parametrize("shape", [(32, 60), (5, 5), (3, 60)])
def test_no_nan_is_lost(shape: tuple[int, int]) -> None:
    spec = _tiled(32, 32, 4)
    boxes = tile_boxes(shape, spec)
    for tile, line, pixel in [(0, 0, 0), (len(boxes) - 1, 31, 31), (0, 17, 30)]:
        maps = np.zeros((len(boxes), 32, 32, 2), np.float32)
        maps[tile, line, pixel, 1] = np.nan
        assert np.isnan(stitch(maps, shape, spec)[boxes[tile].slices]).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_map_for_every_tile(count: int) -> None:
    maps = np.zeros((count, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match=f"{count} maps for 2 tiles"):
        stitch(maps, (10, 16), _tiled(10, 10, 4))


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
