"""What an epoch shows: the plan, the tiles, the targets."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.bundle.manifest import SEGMENTER_INPUT, InputSpec, Tiles
from edge_agent.inspection.preprocess import prepare, tile_boxes
from training.config import Augment, Balance, NetworkConfig, Optimisation, TrainConfig
from training.input import batches as stream
from training.input.batches import ImageSource, example, plan
from workshop.datasets import open_dataset

SPEC = InputSpec(height=48, width=64, channels=1, scaling="standardise")
TILED = InputSpec(
    height=32,
    width=32,
    channels=3,
    scaling="unit",
    tiles=Tiles(height_px=48, width_px=48, overlap_px=8),
)


@pytest.fixture(scope="module")
def source(drawn_set: Path) -> ImageSource:
    return ImageSource(open_dataset(drawn_set), np.arange(36), "segmenter", SPEC)


def test_an_epoch_holds_every_image_once_in_another_order_each_time(source: ImageSource) -> None:
    first, second = (plan(source, TrainConfig(), epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(36))
    assert list(first) != list(second)
    assert list(first) == list(plan(source, TrainConfig(), 0))
    assert list(first) != list(plan(source, TrainConfig(seed=1), 0))


def test_clean_ratio_and_balanced_sampling(source: ImageSource) -> None:
    # 12 defect-free, 12 spots, 12 bars.
    few = plan(source, TrainConfig(balance=Balance(clean_ratio=0.25)), 0)
    kinds = Counter(int(i) % 3 for i in few)
    assert kinds == {0: 6, 1: 12, 2: 12}
    uneven = ImageSource(source.dataset, np.array([0, 3, 6, 9, 12, 15, 18, 21, 1, 2]), "gate", SPEC)
    balanced = TrainConfig(balance=Balance(balanced_sampling=True))
    drawn = Counter(int(i) % 3 for e in range(300) for i in plan(uneven, balanced, e))
    share = {kind: n / drawn.total() for kind, n in drawn.items()}
    assert share == pytest.approx({0: 0.5, 1: 0.25, 2: 0.25}, abs=0.03)
    as_segmenter = ImageSource(source.dataset, uneven.pick, "segmenter", SPEC)
    drawn = Counter(int(i) % 3 for e in range(300) for i in plan(as_segmenter, balanced, e))
    share = {kind: n / drawn.total() for kind, n in drawn.items()}
    assert share == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1 / 3}, abs=0.03)


def test_without_change_an_example_is_what_the_line_sees(source: ImageSource) -> None:
    ((x, y),) = example(source, 1, rng=None, config=TrainConfig())
    assert np.array_equal(x, prepare(source.dataset.image(1), SPEC)[0])
    drawn = source.dataset.planes(1)
    assert y.shape == (48, 64, 2)
    assert y.dtype == np.float32
    # The share of the picture that the class covers is kept by the resize.
    assert y[..., 0].mean() == pytest.approx(drawn[..., 0].mean(), abs=2e-3)
    assert y[..., 1].max() == 0


def test_tiles_are_the_lines_and_labelled_one_by_one(drawn_set: Path) -> None:
    dataset = open_dataset(drawn_set)
    gate = ImageSource(dataset, np.arange(36), "gate", TILED)
    seen = list(example(gate, 2, rng=None, config=TrainConfig()))
    image, planes = dataset.image(2), dataset.planes(2)
    boxes = tile_boxes((image.shape[0], image.shape[1]), TILED)
    assert len(seen) == len(boxes) > 4
    assert np.array_equal(np.stack([x for x, _ in seen]), prepare(image, TILED))
    assert [bool(y[0]) for _, y in seen] == [bool(planes[b.slices].any()) for b in boxes]
    assert any(y[0] for _, y in seen)
    assert not all(y[0] for _, y in seen)
    # In training one tile an image, and more often than not one with the defect.
    still = TrainConfig(
        augment=Augment(flip_along=False, flip_across=False, brightness=0, contrast=0, shift=0)
    )
    drawn = [next(example(gate, 2, rng=np.random.default_rng(k), config=still)) for k in range(80)]
    assert 40 < sum(bool(y[0]) for _, y in drawn) < 80
    everything = {x.tobytes() for x, _ in seen}
    assert {x.tobytes() for x, _ in drawn} <= everything


def test_batches_are_the_same_after_a_restart_at_any_epoch(source: ImageSource) -> None:
    config = TrainConfig(
        optimisation=Optimisation(batch=8), augment=Augment(copy_paste=0.5, zoom=0.1)
    )
    steps = 4
    whole = list(stream.training(source, config, 0, steps).take(3 * steps).as_numpy_iterator())
    later = list(stream.training(source, config, 2, steps).take(steps).as_numpy_iterator())
    for (a, b), (c, d) in zip(whole[2 * steps :], later, strict=True):
        assert np.array_equal(a, c)
        assert np.array_equal(b, d)
    assert not np.array_equal(whole[0][0], whole[steps][0])


def test_workers_share_an_epoch_out(source: ImageSource) -> None:
    config = TrainConfig(optimisation=Optimisation(batch=4))
    both = [
        next(stream.training(source, config, 0, 2, (2, k)).as_numpy_iterator())[0] for k in range(2)
    ]
    alone = list(stream.training(source, config, 0, 2).take(2).as_numpy_iterator())
    in_order = np.concatenate([x for x, _ in alone])
    assert np.array_equal(both[0], in_order[0::2])
    assert np.array_equal(both[1], in_order[1::2])


def test_validation_shows_every_image_once_as_it_is(source: ImageSource) -> None:
    config = TrainConfig(optimisation=Optimisation(batch=8))
    batches = list(stream.validation(source, config).as_numpy_iterator())
    assert [len(x) for x, _ in batches] == [8, 8, 8, 8, 4]
    assert np.array_equal(batches[0][0][3], prepare(source.dataset.image(3), SPEC)[0])
    assert SEGMENTER_INPUT.tiles is None


def test_a_gate_that_learns_from_masks_gets_the_cover_beside_the_label(
    source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(network=NetworkConfig(head="mapped"))
    gate = ImageSource(source.dataset, source.pick, "gate", SPEC)
    for index, label in ((0, 0), (2, 1)):
        ((_, cover),) = example(source, index, rng=None, config=config)
        ((_, y),) = example(gate, index, rng=None, config=config)
        assert y.shape == (1 + 48 * 64,)
        assert y.dtype == np.float32
        assert y[0] == label
        assert np.array_equal(y[1:].reshape(48, 64), cover.max(axis=2))
        assert (y[1:].max() > 0) == label
    # Image and cover are turned together.
    flipped = TrainConfig(
        network=config.network, augment=Augment(brightness=0, contrast=0, shift=0)
    )
    for seed in range(8):
        ((_, cover),) = example(source, 2, rng=np.random.default_rng(seed), config=flipped)
        ((_, y),) = example(gate, 2, rng=np.random.default_rng(seed), config=flipped)
        assert np.array_equal(y[1:].reshape(48, 64), cover.max(axis=2))
    # A defect that somebody saw and nobody drew, alone and with a drawn one pasted beside it.
    monkeypatch.setattr(type(gate.dataset), "planes", lambda _, i: np.zeros((96, 128, 2), np.bool_))
    ((_, y),) = example(gate, 2, rng=None, config=config)
    assert y[0] == 1
    assert (y[1:] == -1).all()
    sample = gate.dataset.samples[2]
    undrawn = tuple(replace(s, drawn=False) if s is sample else s for s in gate.dataset.samples)
    monkeypatch.undo()
    monkeypatch.setattr(gate.dataset, "samples", undrawn)
    pasted = TrainConfig(network=config.network, augment=Augment(copy_paste=1.0))
    ((_, y),) = example(gate, 2, rng=np.random.default_rng(0), config=pasted)
    assert y[0] == 1
    assert (y[1:] == -1).all()
    assert next(iter(stream.validation(gate, config)))[1].shape == (16, 1 + 48 * 64)
