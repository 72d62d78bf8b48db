"""edge-agent simulate: a data set whose tables agree with its masks."""

import csv
from pathlib import Path

import cv2
import numpy as np

from edge_agent.config.camera import SimulatedCamera
from edge_agent.simulation.dataset import write
from edge_agent.simulation.rolled_steel import CLASS_NAMES, SteelStrip


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_agree_with_masks_and_images_with_the_strip(tmp_path: Path) -> None:
    assert list(write(SimulatedCamera(seed=3), 2, 20, tmp_path)) == list(range(1, 21))
    labels = _rows(tmp_path / "labels.csv")
    assert len({row["file"] for row in labels}) == 20
    for row in labels:
        mask = cv2.imread(str(tmp_path / "masks" / row["file"]), cv2.IMREAD_UNCHANGED)
        assert int(row["defect_pixels"]) == np.count_nonzero(mask)
        if row["class_id"] == "0":
            assert row["class_name"] == "Free"
            assert not mask.any()
        else:
            counts = np.bincount(mask.ravel(), minlength=5)[1:]
            assert int(row["class_id"]) == counts.argmax() + 1
            assert row["class_name"] == CLASS_NAMES[counts.argmax()]
    first = cv2.imread(str(tmp_path / "images" / labels[0]["file"]), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(first, SteelStrip(3).render(0, 256))
    second = cv2.imread(str(tmp_path / "images" / labels[10]["file"]), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(second, SteelStrip(4).render(0, 256))


def test_every_defect_has_its_place(tmp_path: Path) -> None:
    list(write(SimulatedCamera(seed=3), 1, 20, tmp_path))
    defects = _rows(tmp_path / "defects.csv")
    assert defects
    for row in defects:
        mask = cv2.imread(str(tmp_path / "masks" / row["file"]), cv2.IMREAD_UNCHANGED)
        x, y, width, height = (int(row[k]) for k in ("x_px", "y_px", "width_px", "height_px"))
        inside = mask[y : y + height, x : x + width]
        # Another defect may cover a part of it, so not all of its area need be of its class.
        assert np.count_nonzero(inside) >= int(row["area_px"]) > 0
        assert 0.07 <= float(row["contrast"]) <= 0.55
