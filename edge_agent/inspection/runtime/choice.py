"""Choice of a stage's fastest artifact that reproduces the golden outputs on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.bundle.manifest import Artifact, Bundle, Stage
from edge_agent.errors import BundleError
from edge_agent.inspection.runtime.base import CPU, Runtime
from edge_agent.inspection.runtime.self_test import (
    ArtifactCandidate,
    SelfTestResult,
    candidates,
    fastest,
    judge,
)

_TIMED_RUNS = 7


@dataclass(frozen=True, slots=True)
class RefusedArtifact:
    """Artifact that cannot run here, with the reason."""

    label: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ChosenArtifact:
    """Chosen artifact, loaded and warmed up, and the refused ones.

    `run_ms` is its median time in ms for a golden frame, all tiles included. `provider` is as in
    `ArtifactCandidate`.
    """

    artifact: Artifact
    runtime: Runtime
    run_ms: float
    refused: tuple[RefusedArtifact, ...]
    provider: str = ""


def choose(
    bundle: Bundle,
    stage: Stage,
    *,
    precision: str,
    threads: int,
    providers: Sequence[str] = (CPU,),
) -> ChosenArtifact:
    """Load, run, compare and time every artifact of `stage`; return the fastest valid one.

    Args:
        bundle: Bundle with the golden frames and outputs.
        stage: Stage to choose an artifact for.
        precision: "auto", a precision ("int8") or an artifact label ("onnx-int8").
        threads: Number of inference threads.
        providers: onnxruntime providers to try for each ONNX artifact.

    Raises:
        BundleError: No artifact of the stage can be used here.
    """

    def judged(one: ArtifactCandidate) -> SelfTestResult:
        if precision not in ("auto", one.artifact.precision, one.artifact.label):
            return SelfTestResult(one, refusal=f"agent.precision is {precision}")
        return judge(bundle, stage, one, threads=threads, runs=_TIMED_RUNS)

    all_judged = [judged(one) for one in candidates(stage, providers)]
    refused = tuple(RefusedArtifact(j.candidate.label, j.refusal) for j in all_judged if j.refusal)
    best = fastest(all_judged)
    if best is None or best.runtime is None:  # for the type checker: a valid result has a runtime
        why = "; ".join(f"{r.label}: {r.reason}" for r in refused)
        raise BundleError(f"{bundle.folder}: no artifact can be used here ({why})")
    one = best.candidate
    return ChosenArtifact(one.artifact, best.runtime, best.p50_ms, refused, one.provider)
