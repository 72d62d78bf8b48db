"""Float Keras against each artifact, on the same samples: what quantisation did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.gate import SEED_THRESHOLD_LOGIT
from edge_agent.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Row:
    """`difference` is of logits (gate) or probabilities (segmenter) against float Keras.

    `agreement`: share of samples with the same decision at p = 0.01 (gate), or mean IoU of the
    masks at 0.5 over samples where either has one (segmenter; nan when none has).
    """

    stage: str
    label: str
    size_bytes: int
    run_ms: float
    mean_difference: float
    max_difference: float
    agreement: float
    samples: int


def row(
    stage: str,
    label: str,
    size_bytes: int,
    runtime: Runtime,
    batches: Sequence[NDArray[np.float32]],
    reference: NDArray[np.float32],
) -> tuple[Row, NDArray[np.float32]]:
    """The row, and the outputs it was made from, shaped as `reference`."""
    outputs, times = [], []
    for batch in batches:
        began = time.perf_counter()
        outputs.append(runtime.run(batch))
        times.append(1000 * (time.perf_counter() - began))
    got = np.concatenate(outputs).reshape(reference.shape)
    difference = np.abs(got - reference)
    if stage == "gate":
        level = SEED_THRESHOLD_LOGIT
        agreement = float(((got >= level) == (reference >= level)).mean())
    else:
        agreement = _mean_iou(got >= 0.5, reference >= 0.5)
    return (
        Row(
            stage,
            label,
            size_bytes,
            float(np.median(times)),
            float(difference.mean()),
            float(difference.max()),
            agreement,
            len(batches),
        ),
        got,
    )


def _mean_iou(got: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    axes = (1, 2, 3)
    either = (got | reference).sum(axes)
    both = (got & reference).sum(axes)
    return float((both[either > 0] / either[either > 0]).mean()) if either.any() else float("nan")


def table(rows: Sequence[Row]) -> str:
    lines = [
        f"{'stage':<10} {'artifact':<15} {'size kB':>8} {'ms':>7} {'mean diff':>10} "
        f"{'max diff':>9} {'agreement':>9}"
    ]
    lines += [
        f"{r.stage:<10} {r.label:<15} {r.size_bytes / 1000:>8.0f} {r.run_ms:>7.1f} "
        f"{r.mean_difference:>10.5f} {r.max_difference:>9.4f} {r.agreement:>9.4f}"
        for r in rows
    ]
    samples = rows[0].samples if rows else 0
    return "\n".join(
        [
            *lines,
            f"against float Keras on {samples} samples; differences of the logit (gate) and of "
            "probabilities (segmenter);",
            "agreement: same decision at p = 0.01 (gate), IoU of masks at 0.5 (segmenter)",
        ]
    )
