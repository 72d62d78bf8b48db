"""Data sets on the disk and from the simulator, and what their errors say."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.config.camera import SimulatedCamera
from edge_agent.inspection import rle
from edge_agent.simulation.dataset import write
from edge_agent.simulation.rolled_steel import SteelStrip
from workshop.datasets import DataSet, MaskDataSet, SeverstalDataSet, SimulatedDataSet, open_dataset
from workshop.datasets.simulated import FRAME_LINES, MIN_DEFECT_PX
from workshop.errors import WorkshopError

SHAPE = (12, 20)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def _mask(*ids: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    """Class k on the k-th of some columns."""
    mask = np.zeros(shape, np.uint8)
    for column, class_id in enumerate(ids):
        mask[2:5, column] = class_id
    return mask


def _table(path: Path, head: Sequence[str], *rows: Sequence[object]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Three images: defect-free, class 2, classes 1 and 3; labels come from the masks."""
    grey = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint8).reshape(SHAPE)
    for name in ("a", "b", "c"):
        _save(tmp_path / f"images/{name}.png", grey)
    _save(tmp_path / "masks/b.png", _mask(2))
    _save(tmp_path / "masks/c.png", _mask(1, 3))
    return tmp_path


LABELS = ("file", "class_name", "class_id", "defect_pixels")


@pytest.fixture
def labelled(masks: Path) -> Path:
    """The same with labels.csv, in which a is a dent that nobody drew."""
    rows = [("a.png", "dent", 1, 0), ("b.png", "pit", 2, 3), ("c.png", "dent", 1, 6)]
    _table(masks / "labels.csv", LABELS, *rows)
    return masks


@pytest.fixture
def severstal(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        _save(tmp_path / f"train_images/{name}.png", np.full(SHAPE, 90, np.uint8))
    rows = [("b.png", 3, "1 4"), ("b.png", 1, "20 2 30 1")]
    _table(tmp_path / "train.csv", ("ImageId", "ClassId", "EncodedPixels"), *rows)
    return tmp_path


def _refused(folder: Path, names: tuple[str, ...] | None = None) -> str:
    with pytest.raises(WorkshopError) as caught:
        open_dataset(folder, names)
    return _one_line(caught.value)


def _one_line(error: WorkshopError) -> str:
    assert len(str(error).splitlines()) == 1
    return str(error)


def _kinds(dataset: DataSet) -> list[tuple[str, bool, tuple[int, ...]]]:
    return [(s.name, s.defective, s.class_ids) for s in dataset.samples]


# Index masks.


def test_without_a_table_the_masks_are_the_labels(masks: Path) -> None:
    dataset = open_dataset(masks)
    assert _kinds(dataset) == [
        ("a.png", False, ()),
        ("b.png", True, (2,)),
        ("c.png", True, (1, 3)),
    ]
    assert dataset.class_names == ("class_1", "class_2", "class_3")
    planes = dataset.planes(2)
    assert planes.shape == (*SHAPE, 3)
    assert planes.dtype == np.bool_
    for class_id in (1, 2, 3):
        np.testing.assert_array_equal(planes[:, :, class_id - 1], _mask(1, 3) == class_id)
    assert not dataset.planes(0).any()
    np.testing.assert_array_equal(dataset.image(0).ravel(), np.arange(240, dtype=np.uint8))


def test_the_table_says_what_is_defective_and_the_masks_what_else(labelled: Path) -> None:
    dataset = open_dataset(labelled)
    assert _kinds(dataset) == [
        ("a.png", True, (1,)),
        ("b.png", True, (2,)),
        ("c.png", True, (1, 3)),
    ]
    # Class 3 is on a mask only: it has no name.
    assert dataset.class_names == ("dent", "pit", "class_3")


def test_a_subset_takes_the_names_it_is_given(labelled: Path) -> None:
    names = ("dent", "pit", "scale", "never")
    assert open_dataset(labelled, names).class_names == names
    assert open_dataset(labelled, names).planes(1).shape[2] == 4


def test_a_digest_is_of_the_file(masks: Path) -> None:
    digest = hashlib.sha256((masks / "images/b.png").read_bytes()).hexdigest()[:16]
    assert open_dataset(masks).digest(1) == digest


def test_a_label_alone_is_enough_for_a_gate(labelled: Path) -> None:
    for path in (labelled / "masks").iterdir():
        path.unlink()
    (labelled / "masks").rmdir()
    dataset = open_dataset(labelled)
    assert [s.class_ids for s in dataset.samples] == [(1,), (2,), (1,)]
    assert not dataset.planes(2).any()


def test_frames_of_the_simulator_on_disk_are_a_data_set(tmp_path: Path) -> None:
    camera = SimulatedCamera(seed=3, width_px=400, defects_per_m=40, realtime=False)
    assert list(write(camera, 1, 12, tmp_path))[-1] == 12
    dataset = open_dataset(tmp_path)
    several = 0
    for index, sample in enumerate(dataset.samples):
        drawn = np.flatnonzero(dataset.planes(index).any(axis=(0, 1))) + 1
        assert sample.class_ids == tuple(drawn)
        several += len(drawn) > 1
    assert several  # labels.csv names one class; the others are on the masks


Change = Callable[[Path], object]
MASK_FAULTS: list[tuple[str, Change, tuple[str, ...] | None, str]] = [
    ("class beyond the list", lambda _: None, ("x", "y"), "class id 3 not in the list (x, y)"),
    ("a name given twice", lambda _: None, ("x", "x", "y"), "'x' is empty or there twice"),
    (
        "a mask of grey levels",
        lambda d: _save(d / "masks/b.png", _mask(255)),
        None,
        "class id 255; a mask holds class numbers",
    ),
    (
        "a coloured mask",
        lambda d: _save(d / "masks/b.png", np.zeros((*SHAPE, 3), np.uint8)),
        None,
        "save the class numbers as a grey PNG",
    ),
    ("a torn mask", lambda d: (d / "masks/b.png").write_bytes(b"\x89PNG"), None, "truncated"),
    (
        "a mask without an image",
        lambda d: _save(d / "masks/z.png", _mask()),
        None,
        "z.png: no image of this name",
    ),
    (
        "two images of one mask",
        lambda d: _save(d / "images/b.jpg", np.zeros(SHAPE, np.uint8)),
        None,
        "is it the mask of b.jpg or of b.png?",
    ),
    (
        "no images",
        lambda d: [p.unlink() for p in (d / "images").iterdir()],
        None,
        "no images; put some in",
    ),
]


@pytest.mark.parametrize(
    ("change", "names", "words"), [f[1:] for f in MASK_FAULTS], ids=[f[0] for f in MASK_FAULTS]
)
def test_faults_of_masks(
    masks: Path, change: Change, names: tuple[str, ...] | None, words: str
) -> None:
    change(masks)
    assert words in _refused(masks, names)


A, B, C = ("a.png", "dent", 1, 0), ("b.png", "pit", 2, 3), ("c.png", "dent", 1, 6)
TABLE_FAULTS: list[tuple[str, Sequence[str], list[Sequence[object]], str]] = [
    ("a column missing", ("file", "class_name"), [A[:2]], "no column class_id"),
    ("an empty file", (), [], "no column file, class_name, class_id"),
    ("a short row", LABELS, [A, B, ("c.png",)], "line 4: 1 fields, 4 are named above"),
    ("an image twice", LABELS, [A, B, C, B], "line 5: b.png is there twice"),
    ("an image missing", LABELS, [A, B, C, ("z.png", "pit", 2, 1)], "no image images/z.png"),
    ("an image without a row", LABELS, [A, B], "no row for images/c.png (1 such)"),
    ("a path", LABELS, [("../a.png", "pit", 2, 1)], "'../a.png' is not a plain file name"),
    ("a path of another system", LABELS, [("x\\a.png", "pit", 2, 1)], "not a plain file name"),
    ("the folder itself", LABELS, [("..", "pit", 2, 1)], "'..' is not a plain file name"),
    ("no number", LABELS, [("a.png", "pit", "two", 1)], "class id 'two' is not a number"),
    ("below zero", LABELS, [("a.png", "pit", -1, 1)], "class id '-1' is not a number from 0"),
    ("two names of a class", LABELS, [A, ("b.png", "dint", 1, 1)], "'dint' here and 'dent' above"),
    ("two classes of a name", LABELS, [A, ("b.png", "dent", 2, 1), C], "two class ids have one"),
]


@pytest.mark.parametrize(
    ("head", "rows", "words"), [f[1:] for f in TABLE_FAULTS], ids=[f[0] for f in TABLE_FAULTS]
)
def test_faults_of_the_table(
    masks: Path, head: Sequence[str], rows: list[Sequence[object]], words: str
) -> None:
    _table(masks / "labels.csv", head, *rows)
    message = _refused(masks)
    assert words in message
    assert "labels.csv" in message


def test_a_table_in_another_encoding(masks: Path) -> None:
    (masks / "labels.csv").write_bytes(b"file,class_name,class_id\na.png,Gr\xfcbchen,1\n")
    assert "not UTF-8" in _refused(masks)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("dent", "scratch", "x"), "class id 2 is 'pit' there and 'scratch' in the list"),
        (("dent",), "class id 2 not in the list (dent)"),
        (("dent", "pit"), "class id 3 not in the list (dent, pit)"),
    ],
)
def test_names_that_contradict(labelled: Path, names: tuple[str, ...], words: str) -> None:
    assert words in _refused(labelled, names)


def test_faults_that_show_when_read(masks: Path) -> None:
    dataset = open_dataset(masks)
    _save(masks / "masks/b.png", _mask(2, shape=(12, 21)))
    (masks / "images/a.png").write_bytes(b"no picture")
    (masks / "images/c.png").unlink()
    with pytest.raises(WorkshopError, match=r"b\.png: 21x12 px, but the image b\.png is 20x12"):
        dataset.planes(1)
    with pytest.raises(WorkshopError, match=r"a\.png: not a picture .*; replace the file"):
        dataset.image(0)
    for read in (dataset.image, dataset.digest):
        with pytest.raises(WorkshopError, match=r"c\.png: cannot be read: No such file"):
            read(2)


def test_who_looks_for_faults_may_open_all_the_same(masks: Path) -> None:
    (masks / "masks/b.png").write_bytes(b"")
    dataset = open_dataset(masks, strict=False)
    assert _kinds(dataset)[1] == ("b.png", True, ())
    with pytest.raises(WorkshopError, match=r"b\.png: not a picture"):
        dataset.planes(1)


# Run lengths.


def test_run_lengths_are_planes(severstal: Path) -> None:
    dataset = open_dataset(severstal)
    assert _kinds(dataset) == [
        ("a.png", False, ()),
        ("b.png", True, (1, 3)),
        ("c.png", False, ()),
    ]
    assert dataset.class_names == ("class_1", "class_2", "class_3", "class_4")
    planes = dataset.planes(1)
    assert planes.shape == (*SHAPE, 4)
    assert planes[:4, 0, 2].all()  # runs go down the columns
    assert planes.sum(axis=(0, 1)).tolist() == [3, 0, 4, 0]


def test_the_older_table_says_the_same(severstal: Path) -> None:
    planes = open_dataset(severstal).planes(1)
    rows = [("a.png_1", ""), ("b.png_1", "20 2 30 1"), ("b.png_2", ""), ("b.png_3", "1 4")]
    _table(severstal / "train.csv", ("ImageId_ClassId", "EncodedPixels"), *rows)
    dataset = open_dataset(severstal)
    assert [s.class_ids for s in dataset.samples] == [(), (1, 3), ()]
    np.testing.assert_array_equal(dataset.planes(1), planes)


def test_with_a_list_of_labels_only_what_is_labelled_counts(
    severstal: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _table(severstal / "defect_and_no_defect.csv", ("ImageID", "label"), ("a.png", 1))
    with caplog.at_level(logging.WARNING):
        dataset = open_dataset(severstal)
    # a is seen but not drawn; c is in neither table.
    assert _kinds(dataset) == [("a.png", True, ()), ("b.png", True, (1, 3))]
    assert "1 images without a label are left out" in caplog.text


HEAD = ("ImageId", "ClassId", "EncodedPixels")
RUN_FAULTS: list[tuple[str, Sequence[str], list[Sequence[object]], str]] = [
    ("a column missing", ("ImageId", "ClassId"), [], "no column EncodedPixels"),
    ("an image missing", HEAD, [("z.png", 1, "1 1")], "no image train_images/z.png"),
    ("a class beyond", HEAD, [("b.png", 5, "1 1")], "class id 5 not in the list (class_1, "),
    ("class 0", HEAD, [("b.png", 0, "1 1")], "class id 0 not in the list"),
    ("a row twice", HEAD, [("b.png", 1, "1 1"), ("b.png", 1, "2 1")], "b.png has class 1 twice"),
    ("a path", HEAD, [("/etc/b.png", 1, "1 1")], "not a plain file name"),
    ("no class in the name", ("ImageId_ClassId", "EncodedPixels"), [("b.png", "")], "'b.png'"),
]


@pytest.mark.parametrize(
    ("head", "rows", "words"), [f[1:] for f in RUN_FAULTS], ids=[f[0] for f in RUN_FAULTS]
)
def test_faults_of_run_lengths(
    severstal: Path, head: Sequence[str], rows: list[Sequence[object]], words: str
) -> None:
    _table(severstal / "train.csv", head, *rows)
    message = _refused(severstal)
    assert words in message
    assert "train.csv" in message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("b.png", 0), "b.png is defect-free here, but train.csv draws class 1"),
        (("a.png", 2), "label '2'; write 0 for defect-free"),
        (("z.png", 0), "no image train_images/z.png"),
    ],
)
def test_faults_of_the_list_of_labels(severstal: Path, row: Sequence[object], words: str) -> None:
    _table(severstal / "defect_and_no_defect.csv", ("ImageId", "label"), row)
    assert words in _refused(severstal)


def test_a_run_outside_the_image_names_it(severstal: Path) -> None:
    _table(severstal / "train.csv", HEAD, ("b.png", 2, "239 3"))
    dataset = open_dataset(severstal)
    with pytest.raises(WorkshopError) as caught:
        dataset.planes(1)
    message = _one_line(caught.value)
    assert "b.png class 2: RLE: a run ends after the last of 240 pixels; the image is 20x12" in (
        message
    )


def test_a_ragged_mask_is_longer_than_csv_reads_by_itself(severstal: Path) -> None:
    text = rle.encode(np.indices((300, 400)).sum(axis=0) % 2 == 0)
    assert len(text) > 131_072
    _save(severstal / "train_images/b.png", np.zeros((300, 400), np.uint8))
    _table(severstal / "train.csv", HEAD, ("b.png", 1, text))
    csv.field_size_limit(131_072)  # of the whole process; what another library may have set
    assert open_dataset(severstal).planes(1).sum() == 60_000


# Neither.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "looked for images/ with masks/ or labels.csv, and for train_images/"),
        (lambda d: _save(d / "images/a.png", _mask()), "no data set; looked for"),
        (lambda d: d.rmdir(), "no such folder"),
    ],
)
def test_a_folder_that_is_no_data_set(tmp_path: Path, make: Change, words: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    assert words in _refused(folder)


# The simulator.


def test_simulated_frames_are_those_of_the_strip() -> None:
    dataset = SimulatedDataSet(range(1_000, 1_003), 12)
    assert len({s.name for s in dataset.samples}) == len(dataset.samples) < 36
    slivers = 0
    for seed in range(1_000, 1_003):
        for frame in range(12):
            truth = SteelStrip(seed).truth(frame * FRAME_LINES, FRAME_LINES)
            slivers += 0 < np.count_nonzero(truth) < MIN_DEFECT_PX
    assert len(dataset.samples) == 36 - slivers
    # Backwards and more than once: what is read does not hang on what was read before.
    for index in [*reversed(range(0, len(dataset.samples), 5)), 0]:
        sample = dataset.samples[index]
        seed, frame = (int(part.strip("sedfram")) for part in sample.name.split("-"))
        line = frame * FRAME_LINES
        np.testing.assert_array_equal(
            dataset.image(index), SteelStrip(seed).render(line, FRAME_LINES)
        )
        planes, truth = dataset.planes(index), SteelStrip(seed).truth(line, FRAME_LINES)
        np.testing.assert_array_equal((planes * np.arange(1, 5)).sum(axis=2), truth)
        assert sample.class_ids == tuple(np.unique(truth[truth > 0]))
        assert sample.defective == bool(sample.class_ids)


def test_simulated_digests_tell_frames_and_strips_apart() -> None:
    one, two = SimulatedDataSet([1, 2], 3), SimulatedDataSet([2], 3)
    digests = [one.digest(i) for i in range(len(one.samples))]
    assert len(set(digests)) == len(digests)
    assert digests[-1] == two.digest(len(two.samples) - 1)
    assert all(len(d) == 16 for d in digests)


@pytest.mark.parametrize(("seeds", "frames"), [([], 5), ([1], 0), ([1, 1], 5)])
def test_no_simulated_frames(seeds: list[int], frames: int) -> None:
    with pytest.raises(WorkshopError, match=r"^simulated: "):
        SimulatedDataSet(seeds, frames)


# Real data.


@pytest.mark.parametrize(
    ("folder", "kind", "count", "defective", "names"),
    [
        ("magnetic_tile", MaskDataSet, 877, 234, ("Blowhole", "Break", "Crack", "Fray", "Uneven")),
        ("neu_seg", MaskDataSet, 900, 900, ("class_1", "class_2", "class_3")),
        ("severstal", SeverstalDataSet, 17, 9, ("class_1", "class_2", "class_3", "class_4")),
    ],
)
def test_real_data(
    shared_data: Path,
    folder: str,
    kind: type,
    count: int,
    defective: int,
    names: tuple[str, ...],
) -> None:
    dataset = open_dataset(shared_data / folder)
    assert isinstance(dataset, kind)
    assert (len(dataset.samples), dataset.class_names) == (count, names)
    assert sum(s.defective for s in dataset.samples) == defective
    empty = Counter(
        s.class_ids
        for i, s in enumerate(dataset.samples)
        if s.defective and not dataset.planes(i).any()
    )
    assert empty == ({(5,): 2} if folder == "magnetic_tile" else {})
    assert sum(not sample.drawn for sample in dataset.samples) == sum(empty.values())
