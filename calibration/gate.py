"""The gate's decision threshold per artifact, in logit space, from labelled frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from calibration.labelled import DataError, LabelledFrame
from edge_agent.bundle import MANIFEST, Artifact, Bundle, encode_manifest
from edge_agent.camera.folder import read_image
from edge_agent.gate import SEED_THRESHOLD_LOGIT
from edge_agent.preprocess import prepare
from edge_agent.runtime import open_runtime


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


def choose(scores: NDArray[np.float64], defective: NDArray[np.bool_], miss_rate: float) -> float:
    """The highest threshold that misses at most `miss_rate` (0..1) of the defective scores.

    `scores` are logits, shape (n,). Half of the distance to the next score below is left as
    margin, at most 1: the next defect will not score exactly what these did.
    """
    found = np.sort(scores[defective])
    allowed = math.floor(miss_rate * len(found) + 1e-9)
    lowest = float(found[allowed])
    below = scores[scores < lowest]
    distance = lowest - float(below.max()) if below.size else 1.0
    return lowest - min(1.0, distance / 2)


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

    Frames with a defect below `min_defect_px` are neither defective nor clean: left out.
    Raises DataError when no defective frame is left, or a frame cannot be read.
    """
    used = [f for f in frames if f.class_id == 0 or (f.defect_px or 0) >= min_defect_px]
    if min_defect_px == 0:
        used = list(frames)
    defective = np.array([f.class_id > 0 for f in used])
    if not defective.any():
        raise DataError("--data: no defective frames; a threshold needs some, 300 are better")
    stage = bundle.manifest.gate
    runtimes = [open_runtime(bundle, artifact, threads) for artifact in stage.artifacts]
    scores = np.empty((len(stage.artifacts), len(used)))
    for column, frame in enumerate(used):
        try:
            batch = prepare(read_image(frame.image), stage.input)
        except ValueError as error:
            raise DataError(f"--data: {frame.image}: {error}; remove or replace it") from None
        scores[:, column] = [float(r.run(batch).reshape(-1)[0]) for r in runtimes]
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
    """Write thresholds by artifact label into `bundle.json`, whole or not at all."""

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
    temporary = Path(bundle.folder) / f".{MANIFEST}.new"
    try:
        temporary.write_bytes(encode_manifest(changed))
        temporary.replace(bundle.folder / MANIFEST)
    except OSError as error:
        raise DataError(
            f"--bundle: {bundle.folder}: {error.strerror}; it must be writable"
        ) from None
