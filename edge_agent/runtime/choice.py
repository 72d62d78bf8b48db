"""Of a stage's artifacts, the fastest that gives the golden outputs on this machine."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from statistics import median

import numpy as np

from edge_agent.bundle import Artifact, Bundle, Stage
from edge_agent.errors import BundleError
from edge_agent.preprocess import prepare
from edge_agent.runtime.base import Runtime

_TIMED_RUNS = 7


@dataclass(frozen=True, slots=True)
class Refusal:
    """An artifact that will not run here, and why."""

    label: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The artifact that was chosen, loaded and warm, its median time, and what was refused."""

    artifact: Artifact
    runtime: Runtime
    run_ms: float
    refused: tuple[Refusal, ...]


def open_runtime(bundle: Bundle, artifact: Artifact, threads: int) -> Runtime:
    """Load an artifact. What the libraries raise is theirs; callers treat any as a refusal."""
    # Imported here so that a machine without one of the libraries still has the other.
    arguments = (bundle.path(artifact), artifact.input_name, artifact.output_name, threads)
    if artifact.format == "onnx":
        from edge_agent.runtime.onnx import OnnxRuntime

        return OnnxRuntime(*arguments)
    from edge_agent.runtime.tflite import TfliteRuntime

    return TfliteRuntime(*arguments)


def choose(bundle: Bundle, stage: Stage, *, precision: str, threads: int) -> Choice:
    """Load, invoke, compare and time every artifact of `stage`; BundleError when none is left.

    `precision` is "auto", a precision ("int8") or a label ("onnx-int8").
    """
    refused, passed = [], []
    for artifact in stage.artifacts:
        if precision not in ("auto", artifact.precision, artifact.label):
            refused.append(Refusal(artifact.label, f"agent.precision is {precision}"))
            continue
        if artifact.cpu_architecture not in ("any", platform.machine()):
            refused.append(Refusal(artifact.label, f"made for {artifact.cpu_architecture}"))
            continue
        try:
            runtime = open_runtime(bundle, artifact, threads)
            difference = golden_difference(bundle, stage, artifact, runtime)
        except Exception as error:  # a native library may raise anything; the reason is kept
            first = str(error).splitlines() or [type(error).__name__]
            refused.append(Refusal(artifact.label, f"does not run here: {first[0]}"))
            continue
        if not difference <= artifact.golden_tolerance:  # NaN fails too
            refused.append(
                Refusal(
                    artifact.label,
                    f"differs from the golden outputs by {difference:.3g}, "
                    f"{artifact.golden_tolerance:.3g} allowed",
                )
            )
            continue
        passed.append((_run_ms(bundle, stage, runtime), artifact, runtime))
    if not passed:
        why = "; ".join(f"{r.label}: {r.reason}" for r in refused)
        raise BundleError(f"{bundle.folder}: no artifact can be used here ({why})")
    run_ms, artifact, runtime = min(passed, key=lambda one: one[0])
    return Choice(artifact, runtime, run_ms, tuple(refused))


def golden_difference(bundle: Bundle, stage: Stage, artifact: Artifact, runtime: Runtime) -> float:
    """Largest over the golden frames: |logit difference|, or mean |probability difference|."""
    expected = bundle.golden.outputs.get(artifact.file.name)
    if expected is None or len(expected) != len(bundle.golden.images) or not len(expected):
        raise ValueError("no golden outputs for it in the bundle")
    worst = 0.0
    for image, want in zip(bundle.golden.images, expected, strict=True):
        got = runtime.run(prepare(image, stage.input))[0]
        reference = want.astype(np.float32) / (255 if want.dtype == np.uint8 else 1)
        # float() first: max() would swallow a NaN that comes second.
        difference = float(np.abs(got.reshape(reference.shape) - reference).mean())
        if np.isnan(difference):
            return difference
        worst = max(worst, difference)
    return worst


def _run_ms(bundle: Bundle, stage: Stage, runtime: Runtime) -> float:
    batch = prepare(bundle.golden.images[0], stage.input)
    times = []
    for _ in range(_TIMED_RUNS):
        began = time.perf_counter()
        runtime.run(batch)
        times.append(1000 * (time.perf_counter() - began))
    return median(times)
