"""The gate's decision threshold per artifact, in logit space, from labelled frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from edge_agent import files
from edge_agent.bundle.manifest import MANIFEST, Artifact, Bundle
from edge_agent.bundle.reader import encode_manifest
from edge_agent.bundle.signature import SIGNATURE
from edge_agent.image_files import read_image
from edge_agent.inspection.gate import SEED_THRESHOLD_LOGIT, frame_score, logit
from edge_agent.inspection.preprocess import inputs, tile_boxes
from edge_agent.inspection.runtime import open_runtime
from workshop.datasets.labelled_frames import LabelledFrame
from workshop.errors import WorkshopError
from workshop.thresholds import choose


@dataclass(frozen=True, slots=True)
class Threshold:
    """What was set for an artifact, and what it does on the frames it was chosen on.

    These counts describe the choice. They are no estimate of the miss rate on other frames.
    """

    artifact: str
    threshold_logit: float
    defective: int
    missed: int
    clean: int
    clean_passed_on: int


def calibrate(
    bundle: Bundle,
    frames: Sequence[LabelledFrame],
    *,
    miss_rate: float,
    min_defect_px: int,
    threads: int,
    progress: Callable[[str], None],
) -> tuple[Threshold, ...]:
    """Score the frames with every gate artifact and write its threshold into the bundle.

    With tiles a frame's score is the highest of its tiles', as on the line. Frames with a defect
    below `min_defect_px` are neither defective nor clean: left out. Raises WorkshopError when no
    defective frame is left, a frame cannot be read, or an artifact gives no number for one.
    """
    used = [f for f in frames if f.class_id == 0 or (f.defect_px or 0) >= min_defect_px]
    if min_defect_px == 0:
        used = list(frames)
    defective = np.array([f.class_id > 0 for f in used])
    if not defective.any():
        raise WorkshopError("--data: no defective frames; a threshold needs some, 300 are better")
    stage = bundle.manifest.gate
    runtimes = [open_runtime(bundle, artifact, threads) for artifact in stage.artifacts]
    scores = np.empty((len(stage.artifacts), len(used)))
    for column, frame in enumerate(used):
        try:
            image = read_image(frame.image)
            boxes = tile_boxes((image.shape[0], image.shape[1]), stage.input)
        except ValueError as error:
            raise WorkshopError(f"--data: {frame.image}: {error}; remove or replace it") from None
        # Tile by tile, each prepared once for all artifacts.
        logits = [[logit(r.run(x)) for r in runtimes] for x in inputs(image, stage.input, boxes)]
        scores[:, column] = [frame_score(of_one) for of_one in zip(*logits, strict=True)]
        for artifact, score in zip(stage.artifacts, scores[:, column], strict=True):
            if not math.isfinite(score):
                raise WorkshopError(
                    f"--data: {frame.image}: {artifact.file.name} gives {score}, no number; "
                    "train the gate again and export it"
                )
        progress(frame.image.name)
    results = []
    for artifact, row in zip(stage.artifacts, scores, strict=True):
        threshold = choose(row, defective, miss_rate)
        suspect = row >= threshold
        results.append(
            Threshold(
                artifact.label,
                threshold,
                int(defective.sum()),
                int((defective & ~suspect).sum()),
                int((~defective).sum()),
                int((~defective & suspect).sum()),
            )
        )
    counts = f"{int(defective.sum())} defective, {int((~defective).sum())} clean frames"
    write(
        bundle,
        {r.artifact: r.threshold_logit for r in results},
        f"miss rate {miss_rate} on {counts}",
    )
    return tuple(results)


def reset(bundle: Bundle) -> None:
    """Back to the seed's threshold, a probability of 0.01, for every artifact."""
    labels = [a.label for a in bundle.manifest.gate.artifacts]
    write(bundle, dict.fromkeys(labels, SEED_THRESHOLD_LOGIT), "p = 0.01, no labels")


def write(bundle: Bundle, thresholds: dict[str, float], basis: str) -> None:
    """Write thresholds by artifact label into `bundle.json`, whole or not at all.

    A signature goes: it was for the old bytes.
    """

    def with_threshold(artifact: Artifact) -> Artifact:
        value = round(thresholds[artifact.label], 6)
        return msgspec.structs.replace(artifact, threshold_logit=value)

    manifest = bundle.manifest
    gate = msgspec.structs.replace(
        manifest.gate, artifacts=tuple(with_threshold(a) for a in manifest.gate.artifacts)
    )
    changed = msgspec.structs.replace(
        manifest, gate=gate, provenance={**manifest.provenance, "gate_threshold": basis}
    )
    try:
        with files.replacing(bundle.folder / MANIFEST) as new:
            new.write_bytes(encode_manifest(changed))
        (bundle.folder / SIGNATURE).unlink(missing_ok=True)
    except OSError as error:
        raise WorkshopError(
            f"--bundle: {bundle.folder}: {error.strerror}; it must be writable"
        ) from None
