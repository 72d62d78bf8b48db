"""From probability maps to regions, and back to a class map."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edge_agent.bundle import reader
from edge_agent.bundle.manifest import InputSpec, RegionRule, Tiles
from edge_agent.frame import ClassMap, Region
from edge_agent.inspection import rle
from edge_agent.inspection.preprocess import Box, tile_boxes
from edge_agent.inspection.runtime import ChosenArtifact, choose
from edge_agent.inspection.runtime.onnx import OnnxRuntime
from edge_agent.inspection.segmenter import Segmenter, class_map, regions

ANY = RegionRule(min_probability=0.5, min_area_px=1)
CLASSES = 3


def _maps(classes: ClassMap, probability: float = 0.9, count: int = CLASSES) -> NDArray[np.float32]:
    """Maps that say just this class map."""
    maps = np.zeros((*classes.shape, count), np.float32)
    for class_id in range(1, count + 1):
        maps[:, :, class_id - 1][classes == class_id] = probability
    return maps


def _shape(classes: ClassMap) -> tuple[int, int]:
    return (classes.shape[0], classes.shape[1])


def _blank(lines: int = 64, pixels: int = 100) -> ClassMap:
    return np.zeros((lines, pixels), np.uint8)


def test_sound_steel_has_no_regions() -> None:
    assert regions(_maps(_blank()), (64, 100), ANY) == ()
    assert regions(_maps(_blank()), (256, 1600), ANY) == ()
    assert regions(np.full((8, 8, 2), 0.49, np.float32), (8, 8), ANY) == ()


def test_a_region_is_described_whole() -> None:
    classes = _blank()
    classes[10:14, 20:30] = 2
    classes[13, 29] = 0  # not the whole box
    (region,) = regions(_maps(classes), _shape(classes), ANY)
    assert region.class_id == 2
    assert (region.x_px, region.y_px, region.width_px, region.height_px) == (20, 10, 10, 4)
    assert region.area_px == 39
    assert region.confidence == pytest.approx(0.9)
    np.testing.assert_array_equal(rle.decode(region.rle, _shape(classes)), classes == 2)


def test_two_classes_side_by_side_are_two_regions_largest_first() -> None:
    classes = _blank()
    classes[10:20, 20:30] = 1
    classes[10:20, 30:45] = 3
    classes[40:42, 5:8] = 1
    found = regions(_maps(classes), _shape(classes), ANY)
    assert [(r.class_id, r.area_px) for r in found] == [(3, 150), (1, 100), (1, 6)]


def test_a_pixel_belongs_to_its_most_probable_class() -> None:
    maps = np.zeros((4, 4, 2), np.float32)
    maps[:, :, 0] = 0.6
    maps[:2, :, 1] = 0.8
    upper, lower = sorted(regions(maps, (4, 4), ANY), key=lambda r: r.y_px)
    assert (upper.class_id, upper.confidence) == (2, pytest.approx(0.8))
    assert (lower.class_id, lower.confidence) == (1, pytest.approx(0.6))


def test_the_least_probability_itself_counts_and_of_equals_the_first_class() -> None:
    maps = np.full((4, 4, 3), 0.25, np.float32)
    maps[1:3, 1:3, 1:] = 0.5
    (region,) = regions(maps, (4, 4), ANY)
    assert (region.class_id, region.area_px) == (2, 4)


@given(
    maps=hnp.arrays(np.float32, (6, 9, 3), elements=st.sampled_from((0.0, 0.25, 0.5, 0.75, 1.0))),
    least=st.sampled_from((0.25, 0.5, 0.75)),
)
@settings(deadline=None)
def test_every_pixel_is_decided_by_itself(maps: NDArray[np.float32], least: float) -> None:
    expected = np.where(maps.max(axis=2) >= least, maps.argmax(axis=2) + 1, 0)
    found = regions(maps, (6, 9), RegionRule(min_probability=least, min_area_px=1))
    np.testing.assert_array_equal(class_map(found, (6, 9)), expected)


def test_corners_that_touch_are_one_region() -> None:
    classes = _blank(6, 6)
    classes[:3, :3] = 1
    classes[3:, 3:] = 1
    (region,) = regions(_maps(classes), (6, 6), ANY)
    assert (region.area_px, region.width_px, region.height_px) == (18, 6, 6)


def test_a_hole_is_not_of_the_region() -> None:
    classes = _blank(9, 9)
    classes[1:8, 1:8] = 1
    classes[3:6, 3:6] = 0
    (region,) = regions(_maps(classes), (9, 9), ANY)
    assert region.area_px == 40
    assert not rle.decode(region.rle, (9, 9))[4, 4]


@pytest.mark.parametrize(("least", "count"), [(1, 2), (12, 2), (13, 1), (100, 1), (101, 0)])
def test_min_area(least: int, count: int) -> None:
    classes = _blank()
    classes[0:10, 0:10] = 1
    classes[30:33, 30:34] = 1
    found = regions(_maps(classes), _shape(classes), RegionRule(min_area_px=least))
    assert len(found) == count


@pytest.mark.parametrize(("least", "count"), [(0.3, 2), (0.7, 2), (0.71, 1), (0.91, 0)])
def test_min_probability(least: float, count: int) -> None:
    maps = np.zeros((20, 20, 2), np.float32)
    maps[0:5, 0:5, 0] = 0.7
    maps[10:15, 10:15, 1] = 0.9
    # A float32 probability is a little off its decimal.
    found = regions(maps, (20, 20), RegionRule(min_probability=least - 1e-4, min_area_px=1))
    assert len(found) == count


def test_maps_of_the_network_are_scaled_to_the_frame() -> None:
    classes = _blank(64, 64)
    classes[16:32, 8:24] = 1
    (region,) = regions(_maps(classes), (256, 1600), ANY)
    # Four lines and 25 pixels of the frame to one of the map.
    assert region.y_px == pytest.approx(64, abs=3)
    assert region.height_px == pytest.approx(64, abs=6)
    assert region.x_px == pytest.approx(200, abs=16)
    assert region.width_px == pytest.approx(400, abs=32)
    mask = rle.decode(region.rle, (256, 1600))
    assert mask.sum() == region.area_px
    assert mask[96, 400]


@pytest.mark.parametrize(("least", "edge"), [(0.25, 17.5), (0.5, 20), (0.75, 22.5)])
def test_an_edge_lies_between_the_pixels_of_the_map(least: float, edge: float) -> None:
    maps = np.zeros((4, 4, 1), np.float32)
    maps[:, 2:] = 1
    (region,) = regions(maps, (4, 40), RegionRule(min_probability=least, min_area_px=1))
    # From 0 to 1 between the centres of two map pixels, 10 px of the frame apart.
    assert region.x_px == pytest.approx(edge, abs=0.6)


def test_a_frame_smaller_than_the_map() -> None:
    classes = _blank(64, 64)
    classes[0:32, 32:64] = 2
    (region,) = regions(_maps(classes), (32, 16), ANY)
    assert (region.x_px, region.y_px) == (8, 0)
    assert (region.width_px, region.height_px, region.area_px) == (8, 16, 128)


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_any_number_of_classes(count: int) -> None:
    classes = _blank(10, 10)
    classes[2:5, 2:5] = count
    (region,) = regions(_maps(classes, count=count), (20, 20), ANY)
    assert region.class_id == count


@given(classes=hnp.arrays(np.uint8, (12, 17), elements=st.integers(0, CLASSES)))
@settings(deadline=None)
def test_regions_are_the_class_map(classes: ClassMap) -> None:
    shape = _shape(classes)
    found = regions(_maps(classes), shape, ANY)
    np.testing.assert_array_equal(class_map(found, shape), classes)
    assert [r.area_px for r in found] == sorted((r.area_px for r in found), reverse=True)
    seen = np.zeros(shape, np.int64)
    for region in found:
        mask = rle.decode(region.rle, shape)
        assert mask.sum() == region.area_px
        lines, pixels = np.nonzero(mask)
        assert (lines.min(), pixels.min()) == (region.y_px, region.x_px)
        assert lines.max() == region.y_px + region.height_px - 1
        assert pixels.max() == region.x_px + region.width_px - 1
        assert region.confidence == pytest.approx(0.9)
        seen += mask
    assert seen.max(initial=0) <= 1


def test_nothing_painted_back_is_sound() -> None:
    classes = class_map((), (5, 7))
    assert classes.shape == (5, 7)
    assert classes.dtype == np.uint8
    assert not classes.any()


@pytest.mark.parametrize("share", [1.0, 0.01])
def test_maps_that_are_not_numbers_are_not_sound_steel(share: float) -> None:
    maps = np.zeros((16, 16, 2), np.float32)
    maps.reshape(-1)[: int(share * maps.size)] = np.nan
    with pytest.raises(ValueError, match="not a number"):
        regions(maps, (16, 16), ANY)


def test_a_real_network_finds_a_mark_where_it_is(tiny_bundle: Path) -> None:
    bundle = reader.load(tiny_bundle)
    stage = bundle.manifest.segmenter
    choice = choose(bundle, stage, precision="float32", threads=1)
    segmenter = Segmenter(stage.input, choice, bundle.manifest.regions)
    image = np.full((256, 1600), 100, np.uint8)
    image += np.random.default_rng(0).integers(0, 3, image.shape, dtype=np.uint8)
    assert segmenter.find(image) == ()
    image[100:116, 800:860] = 255
    bright = bundle.manifest.class_names.index("bright") + 1
    masks = [rle.decode(r.rle, (256, 1600)) for r in segmenter.find(image) if r.class_id == bright]
    assert len(masks) == 1
    assert masks[0][105:111, 810:850].all()
    assert not masks[0][:90].any()
    assert not masks[0][130:].any()


# Tiles.

FRAME = (64, 400)
TILES = Tiles(height_px=64, width_px=64, overlap_px=8)


def _pointwise(path: Path, lines: int, pixels: int) -> None:
    """A network for which every pixel stands alone: two maps, 0.9 of the grey and what is left of
    0.9. What it says does not hang on the tile in which it sees the pixel."""
    size = (1, lines, pixels)
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["image", "half"], ["bright"]),
            helper.make_node("Sub", ["half", "bright"], ["dark"]),
            helper.make_node("Concat", ["bright", "dark"], ["output"], axis=3),
        ],
        "pointwise",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [*size, 1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [*size, 2])],
        [helper.make_tensor("half", TensorProto.FLOAT, [1], [0.9])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    path.write_bytes(made.SerializeToString())


class Counted:
    """A real runtime, and the inputs it was given."""

    def __init__(self, runtime: OnnxRuntime) -> None:
        self._runtime, self.name = runtime, runtime.name
        self.seen: list[NDArray[np.float32]] = []

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(batch)
        return self._runtime.run(batch)


@pytest.fixture
def views(tmp_path: Path, tiny_bundle: Path) -> Callable[[Tiles | None], tuple[Segmenter, Counted]]:
    """`views(tiles)`: a segmenter on tiles at native size, or on the whole frame at native size."""

    def view(tiles: Tiles | None) -> tuple[Segmenter, Counted]:
        size = FRAME if tiles is None else (tiles.height_px, tiles.width_px)
        path = tmp_path / f"{size[1]}.onnx"
        _pointwise(path, *size)
        counted = Counted(OnnxRuntime(path, "image", "output", 1))
        spec = InputSpec(height=size[0], width=size[1], channels=1, scaling="unit", tiles=tiles)
        artifact = reader.load(tiny_bundle).manifest.segmenter.artifacts[0]
        return Segmenter(spec, ChosenArtifact(artifact, counted, 1.0, ()), ANY), counted

    return view


Views = Callable[[Tiles | None], tuple[Segmenter, Counted]]


@given(image=hnp.arrays(np.uint8, FRAME, elements=st.sampled_from((0, 100, 150, 255))))
@settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_tiles_give_the_regions_of_the_whole_frame(views: Views, image: NDArray[np.uint8]) -> None:
    (tiled, counted), (whole, _) = views(TILES), views(None)
    found, want = tiled.find(image), whole.find(image)
    assert len(counted.seen) == 7
    assert [_place(r) for r in found] == [_place(r) for r in want]
    assert [r.confidence for r in found] == pytest.approx([r.confidence for r in want])


def _place(region: Region) -> Region:
    return dataclasses.replace(region, confidence=0)


def test_a_defect_on_the_border_of_tiles_is_one_region(views: Views) -> None:
    (tiled, _), (whole, _) = views(TILES), views(None)
    image = np.full(FRAME, 120, np.uint8)
    image[20:40, 50:130] = 255  # tiles 0, 1 and 2
    (region,) = tiled.find(image)
    assert region.area_px == 20 * 80
    assert (region.x_px, region.y_px, region.width_px, region.height_px) == (50, 20, 80, 20)
    assert region.rle == whole.find(image)[0].rle


def test_only_suspect_tiles_are_run_and_the_others_are_sound(views: Views) -> None:
    tiled, counted = views(TILES)
    boxes = tile_boxes(
        FRAME, InputSpec(height=64, width=64, channels=1, scaling="unit", tiles=TILES)
    )
    image = np.full(FRAME, 120, np.uint8)
    for first in (10, 120, 340):  # in tiles 0, 2 and 6
        image[20:40, first : first + 30] = 255
    found = tiled.find(image, (boxes[2], boxes[6]))
    assert sorted(r.x_px for r in found) == [120, 340]
    assert [x.shape for x in counted.seen] == [(1, 64, 64, 1)] * 2
    for x, box in zip(counted.seen, (boxes[2], boxes[6]), strict=True):
        np.testing.assert_allclose(x[0, :, :, 0] * 255, image[box.slices], atol=1e-3)


def test_in_an_overlap_the_suspect_tile_speaks_for_both(views: Views) -> None:
    """The gate saw it in one tile only: with half of the weight it would be below 0.5."""
    tiled, counted = views(TILES)
    boxes = tile_boxes(
        FRAME, InputSpec(height=64, width=64, channels=1, scaling="unit", tiles=TILES)
    )
    image = np.full(FRAME, 120, np.uint8)
    image[20:40, 57:63] = 160  # within the overlap of tiles 0 and 1, from 56 to 64
    (region,) = tiled.find(image, (boxes[1],))
    assert len(counted.seen) == 1
    assert (region.x_px, region.width_px, region.area_px) == (57, 6, 120)
    assert region.confidence == pytest.approx(0.9 * 160 / 255)


@pytest.mark.parametrize(
    ("tiles", "suspect", "runs"),
    [
        pytest.param(TILES, (Box(0, 0, *FRAME),), 7, id="gate on the frame, segmenter on tiles"),
        pytest.param(None, (Box(0, 0, 64, 64), Box(0, 56, 64, 64)), 1, id="the other way round"),
        pytest.param(TILES, (Box(0, 0, 64, 80), Box(0, 64, 64, 80)), 7, id="two kinds of tiles"),
        pytest.param(None, (Box(0, 0, *FRAME),), 1, id="both on the frame"),
        pytest.param(TILES, (), 7, id="nothing known"),
    ],
)
def test_where_the_gate_looks_in_another_way_all_is_run(
    views: Views, tiles: Tiles | None, suspect: tuple[Box, ...], runs: int
) -> None:
    segmenter, counted = views(tiles)
    image = np.full(FRAME, 120, np.uint8)
    image[20:40, 300:330] = 255
    (region,) = segmenter.find(image, suspect)
    assert (region.x_px, region.area_px) == (300, 600)
    assert len(counted.seen) == runs
