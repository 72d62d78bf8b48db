"""Calibration of the gate's threshold for each artifact, in logit space, on labelled frames."""

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
    """Threshold of one artifact, with the counts on the frames that chose it.

    The counts describe the choice. They do not estimate the miss rate on other frames.
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
    """Score the frames with every gate artifact and write the thresholds into the bundle.

    With tiles, the score of a frame is the highest score of its tiles, as on the line.

    Args:
        bundle: The bundle to calibrate; its manifest is rewritten.
        frames: Labelled frames, defective and clean.
        miss_rate: Largest allowed share of defective frames below the threshold, in [0, 1).
        min_defect_px: Frames with a smaller defect are left out.
        threads: Threads for each runtime.
        progress: Called with the file name of each scored frame.

    Returns:
        One threshold for each gate artifact, in the order of the manifest.

    Raises:
        WorkshopError: No defective frame remains, a frame cannot be read, a score is not finite,
            or the bundle cannot be written.
    """
    used = [f for f in frames if f.class_id == 0 or (f.defect_px or 0) >= min_defect_px]
    if min_defect_px == 0:
        used = list(frames)
    defective = np.array([f.class_id > 0 for f in used])
    if not defective.any():
        raise WorkshopError("--data: no defective frames; add some, 300 or more are better")
    stage = bundle.manifest.gate
    runtimes = [open_runtime(bundle, artifact, threads) for artifact in stage.artifacts]
    scores = np.empty((len(stage.artifacts), len(used)))
    for column, frame in enumerate(used):
        try:
            image = read_image(frame.image)
            boxes = tile_boxes((image.shape[0], image.shape[1]), stage.input)
        except ValueError as error:
            raise WorkshopError(f"--data: {frame.image}: {error}; remove or replace it") from None
        # All artifacts share one preprocessed tile, so that memory holds one tile at a time.
        logits = [[logit(r.run(x)) for r in runtimes] for x in inputs(image, stage.input, boxes)]
        scores[:, column] = [frame_score(tiles) for tiles in zip(*logits, strict=True)]
        for artifact, score in zip(stage.artifacts, scores[:, column], strict=True):
            if not math.isfinite(score):
                raise WorkshopError(
                    f"--data: {frame.image}: {artifact.file.name} returned {score}, which is "
                    "not finite; train the gate again and export it"
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
    """Set every gate artifact to the default threshold, a probability of 0.01.

    Raises WorkshopError if the bundle cannot be written.
    """
    labels = [a.label for a in bundle.manifest.gate.artifacts]
    write(bundle, dict.fromkeys(labels, SEED_THRESHOLD_LOGIT), "p = 0.01, no labels")


def write(bundle: Bundle, thresholds: dict[str, float], basis: str) -> None:
    """Replace the gate thresholds in `bundle.json` atomically and delete the bundle's signature.

    Args:
        bundle: The bundle whose manifest is rewritten.
        thresholds: Threshold in logits for each artifact label.
        basis: Origin of the thresholds, for the provenance in the manifest.

    Raises:
        WorkshopError: The bundle cannot be written.
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
        # The signature covers the old bytes and is no longer valid.
        (bundle.folder / SIGNATURE).unlink(missing_ok=True)
    except OSError as error:
        raise WorkshopError(
            f"--bundle: {bundle.folder}: {error.strerror}; make the folder writable"
        ) from None
