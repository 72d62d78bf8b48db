"""Latency of every artifact of a bundle, in turn, so that all meet the same machine load."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Bundle
from edge_agent.errors import first_line
from edge_agent.inspection.preprocess import inputs
from edge_agent.inspection.runtime import Runtime, candidates, open_runtime, runs_here
from edge_agent.inspection.runtime.base import CPU


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one artifact: preprocessing and network of one frame, batch 1, tile after tile.

    `ratio` is the stage's onnx-float32 median over this one: above 1 is faster than onnx-float32.
    """

    stage: str
    artifact: str
    runtime: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    samples: int
    preprocess_p50_ms: float
    ratio: float


@dataclass(frozen=True, slots=True)
class NotTimed:
    """Artifact that was not timed, with the reason."""

    stage: str
    artifact: str
    reason: str


def measure(
    bundle: Bundle,
    *,
    samples: int,
    warm_up: int,
    threads: int,
    progress: Callable[[], None],
    providers: Sequence[str] = (CPU,),
) -> tuple[tuple[Timing, ...], tuple[NotTimed, ...]]:
    """Time the artifacts of a bundle; return the times, and the artifacts that cannot run here.

    Each round gives every artifact one frame: `warm_up` rounds first, then `samples` counted ones.
    """
    timings: list[Timing] = []
    left_out: list[NotTimed] = []
    for name, stage in (("gate", bundle.manifest.gate), ("segmenter", bundle.manifest.segmenter)):
        ready: list[tuple[str, Runtime]] = []
        for one in candidates(stage, providers):
            if not runs_here(one.artifact):
                made_for = f"made for {one.artifact.cpu_architecture}"
                left_out.append(NotTimed(name, one.label, made_for))
                continue
            try:
                runtime = open_runtime(bundle, one.artifact, threads, one.provider or CPU)
                ready.append((one.label, runtime))
            except Exception as error:  # a native library may raise any exception; it is reported
                left_out.append(NotTimed(name, one.label, first_line(error)))
        times = np.empty((len(ready), samples))
        preparing = np.empty(samples)
        for number in range(-warm_up, samples):
            image = bundle.golden.images[number % len(bundle.golden.images)]
            began = time.perf_counter()
            batches = list(inputs(image, stage.input))
            prepared = time.perf_counter()
            for index, (_, runtime) in enumerate(ready):
                before = time.perf_counter()
                for batch in batches:
                    runtime.run(batch)
                if number >= 0:
                    times[index, number] = 1000 * (time.perf_counter() - before)
            if number >= 0:
                preparing[number] = 1000 * (prepared - began)
            progress()
        timings += _rows(name, ready, times, float(np.median(preparing)))
    return tuple(timings), tuple(left_out)


def _rows(
    stage: str,
    ready: list[tuple[str, Runtime]],
    times: NDArray[np.float64],
    preprocess_ms: float,
) -> list[Timing]:
    medians = {label: float(np.median(t)) for (label, _), t in zip(ready, times, strict=True)}
    base = medians.get("onnx-float32", float("nan"))
    rows = []
    for (label, runtime), row in zip(ready, times, strict=True):
        p50, p95, p99 = (float(p) for p in np.percentile(row, (50, 95, 99)))
        rows.append(
            Timing(
                stage,
                label,
                runtime.name,
                p50,
                p95,
                p99,
                row.size,
                preprocess_ms,
                base / p50,
            )
        )
    return rows


def table(timings: tuple[Timing, ...]) -> str:
    """Return the times as a text table."""
    lines = [
        f"{'stage':<10} {'artifact':<21} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'n':>5} "
        f"{'x onnx-float32':>14}  runtime"
    ]
    lines += [
        f"{t.stage:<10} {t.artifact:<21} {t.p50_ms:>8.2f} {t.p95_ms:>8.2f} {t.p99_ms:>8.2f} "
        f"{t.samples:>5} {t.ratio:>14.2f}  {t.runtime}"
        for t in timings
    ]
    prepared = {t.stage: t.preprocess_p50_ms for t in timings}
    lines.append(", ".join(f"preprocessing {s} {ms:.2f} ms" for s, ms in prepared.items()))
    return "\n".join(lines)
