"""The agent over real images of other people's lines, where they lie beside the repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.image_files import read_image
from edge_agent.inspection import rle

# Folder, number of images, and the shape of each in lines and pixels.
SETS = [
    ("severstal/train_images", 17, (256, 1600)),
    ("aitex/defect", 6, (256, 4096)),
    ("aitex/no_defect", 8, (256, 4096)),
]


@pytest.mark.system
@pytest.mark.parametrize(("name", "count", "shape"), SETS, ids=[name for name, *_ in SETS])
def test_every_real_image_is_inspected_and_accounted_for(
    shared_data: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    check_schema: Callable[[str, Any], None],
    name: str,
    count: int,
    shape: tuple[int, int],
) -> None:
    folder = shared_data / name
    if not folder.is_dir():
        pytest.skip(f"the data set {name} is not beside this repository")
    heard = subscriber(mosquitto.port)
    done = agent(config_file(mosquitto.url, camera={"path": str(folder)})).ended()
    assert done.code == 0, done.stderr
    summary = done.summary
    assert summary["frames_captured"] == summary["frames_inspected"] == count
    assert summary["lines_inspected"] == count * shape[0]
    assert (summary["gaps"], summary["frames_in_progress"]) == ({}, 0)
    assert (summary["messages_pending"], summary["messages_dropped"]) == (0, 0)

    heard.wait("state", 2)
    events = heard.of("event")
    assert len(events) == summary["events_published"] == summary["frames_defective"] > 0
    names = sorted(p.name for p in folder.iterdir())
    for message in events:
        check_schema("event", message.json())
        data = message.json()["data"]
        assert data["source"] == names[data["frame_id"]]
        assert data["line_count"] == shape[0]
        for defect in data["defects"]:
            mask = defect["mask"]
            assert (mask["lines"], mask["pixels"]) == shape
            assert rle.decode(mask["runs"], shape).sum() == defect["area_px"]


@pytest.mark.system
def test_images_of_several_sizes_are_gaps_unless_they_are_asked_for(
    tmp_path: Path,
    shared_data: Path,
    mosquitto: Any,
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
) -> None:
    """The magnetic tiles: no two have to have the same size."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    tiles = sorted((shared_data / "magnetic_tile" / "images").glob("*.jpg"))[:20]
    if not tiles:
        pytest.skip("the data set magnetic_tile is not beside this repository")
    for tile in tiles:
        (folder / tile.name).symlink_to(tile)
    shapes = [read_image(tile).shape[:2] for tile in tiles]
    like_the_first = shapes.count(shapes[0])
    assert like_the_first < len(tiles)

    strict = agent(config_file(mosquitto.url, camera={"path": str(folder)})).ended()
    assert strict.code == 0, strict.stderr
    assert strict.summary["frames_inspected"] == like_the_first
    assert strict.summary["gaps"] == {"bad_frame": len(tiles) - like_the_first}

    camera = {"path": str(folder), "mixed_sizes": True}
    mixed = agent(config_file(mosquitto.url, camera=camera)).ended()
    assert mixed.code == 0, mixed.stderr
    assert mixed.summary["frames_inspected"] == mixed.summary["frames_captured"] == len(tiles)
    assert mixed.summary["lines_inspected"] == sum(shape[0] for shape in shapes)
    assert mixed.summary["gaps"] == {}
