"""Self-test of one artifact on this machine: load, run, compare with golden outputs, time.

The agent's choice and `edge-agent bundle verify` both use `judge`, so their results agree.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Artifact, Bundle, Stage
from edge_agent.errors import first_line
from edge_agent.frame import Image
from edge_agent.inspection.preprocess import Box, inputs, tile_boxes
from edge_agent.inspection.runtime.base import CPU, OPENVINO, Runtime


@dataclass(frozen=True, slots=True)
class ArtifactCandidate:
    """Artifact and the provider it runs on.

    `provider` is onnxruntime's name, or OPENVINO; "" for TFLite.
    """

    artifact: Artifact
    provider: str = ""

    @property
    def label(self) -> str:
        """Return the artifact's label, followed by the provider unless that is the CPU."""
        on = "" if self.provider in ("", CPU) else f" {self.provider}"
        return self.artifact.label + on


@dataclass(frozen=True, slots=True, eq=False)
class SelfTestResult:
    """Result of a candidate's self-test.

    `refusal` is the reason why it cannot be used here. If it is "", `runtime` is loaded and warm,
    and `times_ms` holds the time of each timed run for a golden frame, all tiles included.
    `runtime_name` is "" and `difference` None if the test failed before it reached them.
    """

    candidate: ArtifactCandidate
    runtime: Runtime | None = None
    runtime_name: str = ""
    difference: float | None = None
    times_ms: tuple[float, ...] = ()
    refusal: str = ""

    @property
    def p50_ms(self) -> float:
        """Return the median time in ms; nan for a refused candidate."""
        return median(self.times_ms) if self.times_ms else float("nan")


def candidates(stage: Stage, providers: Sequence[str]) -> tuple[ArtifactCandidate, ...]:
    """Return every ONNX artifact once per provider and every TFLite artifact once."""
    return tuple(
        ArtifactCandidate(artifact, provider)
        for artifact in stage.artifacts
        for provider in (dict.fromkeys(providers) if artifact.format == "onnx" else ("",))
    )


def judge(
    bundle: Bundle, stage: Stage, candidate: ArtifactCandidate, *, threads: int, runs: int
) -> SelfTestResult:
    """Test a candidate of `stage`; time it `runs` times if its outputs are correct.

    Raises nothing: an exception of the inference library becomes the result's `refusal`.
    """
    artifact = candidate.artifact
    if not runs_here(artifact):
        return SelfTestResult(candidate, refusal=f"made for {artifact.cpu_architecture}")
    name, difference = "", None
    try:
        runtime = open_runtime(bundle, artifact, threads, candidate.provider or CPU)
        name = runtime.name
        difference = golden_difference(bundle, stage, artifact, runtime)
        if refusal := excess(difference, artifact.golden_tolerance):
            return SelfTestResult(candidate, None, name, difference, refusal=refusal)
        times_ms = _times_ms(bundle, stage, runtime, runs)
    except Exception as error:  # a native library may raise any type; the result keeps the reason
        refusal = f"does not run here: {first_line(error)}"
        return SelfTestResult(candidate, None, name, difference, refusal=refusal)
    return SelfTestResult(candidate, runtime, name, difference, times_ms)


def runs_here(artifact: Artifact) -> bool:
    """Return True if the artifact was made for this machine's CPU or for any CPU."""
    return artifact.cpu_architecture in ("any", platform.machine())


def fastest(judged: Iterable[SelfTestResult]) -> SelfTestResult | None:
    """Return the result with the smallest median time that was not refused, or None."""
    return min((one for one in judged if not one.refusal), key=lambda one: one.p50_ms, default=None)


def open_runtime(bundle: Bundle, artifact: Artifact, threads: int, provider: str = CPU) -> Runtime:
    """Load an artifact; `provider` applies to ONNX only.

    An ONNX artifact made for another CPU computes the same outputs as there, but slowly. The
    inference libraries raise their own exceptions; callers treat any exception as a refusal.
    """
    # Imported here so that a machine without one library can use the others.
    arguments = (bundle.path(artifact), artifact.input_name, artifact.output_name, threads)
    if artifact.format == "onnx" and provider == OPENVINO:
        from edge_agent.inspection.runtime.openvino import OpenvinoRuntime

        return OpenvinoRuntime(*arguments)
    if artifact.format == "onnx":
        from edge_agent.inspection.runtime.onnx import OnnxRuntime

        return OnnxRuntime(*arguments, provider, exact=not runs_here(artifact))
    from edge_agent.inspection.runtime.tflite import TfliteRuntime

    return TfliteRuntime(*arguments)


def golden_difference(bundle: Bundle, stage: Stage, artifact: Artifact, runtime: Runtime) -> float:
    """Return the largest difference over all golden frames and their tiles.

    The difference is |logit difference| for the gate and mean |probability difference| for the
    segmenter. Raises ValueError if the bundle has no golden outputs for the artifact.
    """
    expected = bundle.golden.outputs.get(artifact.file.name)
    count = sum(len(_boxes(image, stage)) for image in bundle.golden.images)
    if expected is None or len(expected) != count or not count:
        raise ValueError("no golden outputs for it in the bundle")
    batches = (x for image in bundle.golden.images for x in inputs(image, stage.input))
    scale = 255 if expected.dtype == np.uint8 else 1
    wanted = (want.astype(np.float32) / scale for want in expected)
    return worst_difference((runtime.run(x)[0] for x in batches), wanted)


def worst_difference(
    got: Iterable[NDArray[np.float32]], wanted: Iterable[NDArray[np.float32]]
) -> float:
    """Return the largest mean |difference| between paired outputs, or nan if any is nan."""
    worst = 0.0
    for one, want in zip(got, wanted, strict=True):
        # float() first: max() would swallow a NaN that comes second.
        difference = float(np.abs(one.reshape(want.shape) - want).mean())
        if np.isnan(difference):
            return difference
        worst = max(worst, difference)
    return worst


def excess(difference: float, tolerance: float) -> str:
    """Return the reason why the difference is too large, or "" if it is acceptable."""
    if difference <= tolerance:
        return ""  # NaN compares false and is therefore refused
    return f"differs from the golden outputs by {difference:.3g}, {tolerance:.3g} allowed"


def _times_ms(bundle: Bundle, stage: Stage, runtime: Runtime, runs: int) -> tuple[float, ...]:
    """Time the first golden frame: run one tile and multiply by the number of tiles.

    Every tile costs the same, so it is not necessary to run all tiles of a large frame.
    """
    image = bundle.golden.images[0]
    tiles, batch = len(_boxes(image, stage)), next(inputs(image, stage.input))
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        runtime.run(batch)
        times.append(1000 * (time.perf_counter() - began) * tiles)
    return tuple(times)


def _boxes(image: Image, stage: Stage) -> tuple[Box, ...]:
    return tile_boxes((image.shape[0], image.shape[1]), stage.input)
