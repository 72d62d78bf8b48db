"""Pictures of the demo: what is drawn where."""

import numpy as np

from benchmarks import demo, pictures
from edge_agent.simulation.rolled_steel import SteelStrip


def test_annotation_outlines_the_truth_and_keeps_the_size() -> None:
    image = np.full((64, 128), 90, np.uint8)
    image[0, 0] = 91
    truth = np.zeros((64, 128), np.uint8)
    truth[10:30, 20:60] = 2
    picture = pictures.annotate(image, None, truth)
    assert picture.shape == (64, 128, 3)
    assert (picture[10, 20:60] == 255).all()
    assert not (picture[40:, 80:] == 255).any()


def test_sheet_shows_every_picture() -> None:
    one = np.full((64, 128, 3), 200, np.uint8)
    sheet = pictures.sheet([("hits: 3 of 3", [("a", one), ("b", one), ("c", one)]), ("missed", [])])
    assert sheet.shape == (36 + 2 * 150 + 36, 1600, 3)
    assert (sheet[36 + 22 : 36 + 150, :1600] == 200).all()


def test_frames_are_sorted_by_what_became_of_them() -> None:
    strip = SteelStrip(7)
    frames = 60
    px = [int((strip.truth(256 * i, 256) > 0).sum()) for i in range(frames)]
    bad = [i for i in range(frames) if px[i] >= demo.MIN_DEFECT_PX]
    clean = [i for i in range(frames) if px[i] == 0]
    alerted = {bad[0], clean[0]}
    result = demo.sort_frames(strip, frames, alerted, {bad[1]})
    assert result.hits == [bad[0]]
    assert result.missed == bad[2:]
    assert result.false_alerts == [clean[0]]
    assert result.slivers == frames - len(bad) - len(clean)
