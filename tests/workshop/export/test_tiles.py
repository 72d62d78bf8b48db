"""Tiles from the card of a model to the alert on the line, with every real part between."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.__main__ import main as calibrate
from edge_agent import agent as agents
from edge_agent.bundle import reader
from edge_agent.bundle.manifest import GATE_INPUT, SEGMENTER_INPUT, InputSpec, Tiles
from edge_agent.config import config as configs
from edge_agent.delivery.spool.spool import Spool
from edge_agent.frame import Image
from edge_agent.inspection import rle
from edge_agent.inspection.preprocess import tile_boxes
from edge_agent.inspection.runtime import ChosenArtifact, Runtime
from export.__main__ import main as export
from tests.support.small_models import level_gate, level_segmenter
from workshop import model_card
from workshop.model_card import ModelCard

TILES = Tiles(height_px=256, width_px=256, overlap_px=32)
LINES, PIXELS = 256, 1600
DARK, BRIGHT = 1, 2

Mark = tuple[int, int, int, int, int]
"""Class, first line, first pixel, lines, pixels."""
FRAMES: tuple[tuple[Mark, ...], ...] = (
    (),
    ((BRIGHT, 100, 600, 20, 40),),  # within tile 2, from 448 to 704, and no other
    ((DARK, 30, 880, 24, 64),),  # across the overlap of tiles 3 and 4, from 896 to 928
    (),
    ((BRIGHT, 0, 0, 16, 32), (DARK, 220, 1560, 36, 40)),  # in two corners
    ((BRIGHT, 60, 460, 20, 12),),  # nothing but overlap: tiles 1 and 2 both see all of it
    (),
)
SUSPECT_TILES = (0, 1, 2, 0, 2, 2, 0)


def _frame(marks: tuple[Mark, ...], seed: int) -> Image:
    """Steel of grey 98 to 102, a little darker to the right, with rectangles on it."""
    image = np.random.default_rng(seed).integers(98, 103, (LINES, PIXELS)).astype(np.int16)
    image -= np.linspace(0, 20, PIXELS).astype(np.int16)
    for class_id, line, pixel, lines, pixels in marks:
        image[line : line + lines, pixel : pixel + pixels] = 20 if class_id == DARK else 220
    return image.astype(np.uint8)


class Counted:
    """A real runtime, and how often it was run."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self.name, self.runs = runtime, runtime.name, 0

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.runs += 1
        return self._runtime.run(batch)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    rows = ["file,class_id,class_name"]
    for index, marks in enumerate(FRAMES):
        name = f"{index:02d}.png"
        cv2.imwrite(str(folder / "images" / name), _frame(marks, index))
        rows.append(f"{name},{marks[0][0] if marks else 0},")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def _bundle(
    folder: Path, labelled: Path, gate_tiles: Tiles | None, segmenter_tiles: Tiles | None
) -> Path:
    """Saved with Keras, given a card, exported and calibrated as a person would."""
    folder.mkdir()
    models: list[tuple[str, Any, InputSpec, Tiles | None]] = [
        ("gate", level_gate(), GATE_INPUT, gate_tiles),
        ("segmenter", level_segmenter(), SEGMENTER_INPUT, segmenter_tiles),
    ]
    words = ["--samples", str(labelled), "--out", str(folder / "bundle"), "--min-area-px", "100"]
    for stage, model, usual, tiles in models:
        path = folder / f"{stage}.keras"
        model.save(path)
        spec = InputSpec(
            height=usual.height,
            width=usual.width,
            channels=usual.channels,
            scaling=usual.scaling,
            tiles=tiles,
        )
        model_card.write(path, ModelCard(stage=stage, input=spec, class_names=("dark", "bright")))
        words += [f"--{stage}", str(path)]
    assert export(words) == 0
    bundle = folder / "bundle"
    assert calibrate(["gate", "--bundle", str(bundle), "--data", str(labelled), "--json"]) == 0
    return bundle


@pytest.mark.slow
def test_from_the_card_to_the_alert(
    tmp_path: Path,
    labelled: Path,
    free_port: int,
    config_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    check_schema: Callable[[str, Any], None],
) -> None:
    bundle = _bundle(tmp_path / "made", labelled, TILES, TILES)
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(r["missed"], r["clean_passed_on"]) for r in rows] == [(0, 0)] * 4
    manifest = reader.load(bundle).manifest
    assert manifest.gate.input.tiles == manifest.segmenter.input.tiles == TILES
    assert manifest.class_names == ("dark", "bright")

    counted: dict[str, Counted] = {}
    verify = agents.prepare_stages

    def wrapped(config: configs.Config, **keys: Any) -> agents.LoadedBundle:
        stages = verify(config, **keys)

        def count(stage: str, choice: ChosenArtifact) -> ChosenArtifact:
            counted[stage] = Counted(choice.runtime)
            return dataclasses.replace(choice, runtime=counted[stage])

        return agents.LoadedBundle(
            stages.bundle, count("gate", stages.gate), count("segmenter", stages.segmenter)
        )

    monkeypatch.setattr(agents, "prepare_stages", wrapped)
    # No broker listens there: what the agent has to say stays in its spool.
    monkeypatch.setattr(agents, "_DRAIN_S", 0.5)
    config = config_file(
        f"mqtt://127.0.0.1:{free_port}",
        agent={"bundle": str(bundle)},
        camera={"kind": "folder", "path": str(labelled / "images")},
    )
    summary = agents.Agent(configs.load(config)).run()

    defective = [index for index, marks in enumerate(FRAMES) if marks]
    assert summary["gaps"] == {}
    assert (summary["frames_inspected"], summary["frames_defective"]) == (7, len(defective))
    # Seven tiles of every frame for the gate, for the segmenter the suspect ones alone.
    assert len(tile_boxes((LINES, PIXELS), manifest.gate.input)) == 7
    assert counted["gate"].runs == 7 * len(FRAMES)
    assert counted["segmenter"].runs == sum(SUSPECT_TILES)

    spool = Spool(configs.load(config).state_dir / "spool.sqlite3", 1 << 20)
    events = [json.loads(stored.message.payload) for stored in spool.after(0, 100)]
    spool.close()
    assert [event["data"]["frame_id"] for event in events] == defective
    for event in events:
        check_schema("event", event)
        data = event["data"]
        want = np.zeros((LINES, PIXELS), np.uint8)
        for class_id, line, pixel, lines, pixels in FRAMES[data["frame_id"]]:
            want[line : line + lines, pixel : pixel + pixels] = class_id
        got = np.zeros_like(want)
        for defect in data["defects"]:
            got[rle.decode(defect["mask"]["runs"], (LINES, PIXELS))] = defect["class_id"]
        assert len(data["defects"]) == len(FRAMES[data["frame_id"]])
        np.testing.assert_array_equal(got, want)


@pytest.mark.slow
def test_frames_and_tiles_may_be_mixed(
    tmp_path: Path, labelled: Path, config_file: Callable[..., Path]
) -> None:
    """A gate on the whole frame before a segmenter on tiles: the bundle is whole and is taken."""
    bundle = _bundle(tmp_path / "made", labelled, None, TILES)
    config = config_file("embedded", agent={"bundle": str(bundle)})
    stages = agents.prepare_stages(configs.load(config))
    gate, segmenter = stages.bundle.manifest.gate, stages.bundle.manifest.segmenter
    assert (gate.input.tiles, segmenter.input.tiles) == (None, TILES)
    golden = stages.bundle.golden
    assert len(golden.outputs[stages.gate.artifact.file.name]) == len(golden.images) == 4
    assert len(golden.outputs[stages.segmenter.artifact.file.name]) == 7 * 4
