"""Of a stage's artifacts, the fastest that gives the golden outputs on this machine."""

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
    """An artifact that will not run here, and why."""

    label: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ChosenArtifact:
    """The artifact that was chosen, loaded and warm, and what was refused.

    `run_ms`: its median time for a golden frame, with all tiles of it. `provider` as in Candidate.
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
    """Load, invoke, compare and time every artifact of `stage`; BundleError when none is left.

    `precision` is "auto", a precision ("int8") or a label ("onnx-int8"). ONNX artifacts are tried
    on each of `providers`.
    """

    def judged(one: ArtifactCandidate) -> SelfTestResult:
        if precision not in ("auto", one.artifact.precision, one.artifact.label):
            return SelfTestResult(one, refusal=f"agent.precision is {precision}")
        return judge(bundle, stage, one, threads=threads, runs=_TIMED_RUNS)

    all_judged = [judged(one) for one in candidates(stage, providers)]
    refused = tuple(RefusedArtifact(j.candidate.label, j.refusal) for j in all_judged if j.refusal)
    best = fastest(all_judged)
    if best is None or best.runtime is None:  # the second cannot be: what is fit is loaded
        why = "; ".join(f"{r.label}: {r.reason}" for r in refused)
        raise BundleError(f"{bundle.folder}: no artifact can be used here ({why})")
    one = best.candidate
    return ChosenArtifact(one.artifact, best.runtime, best.p50_ms, refused, one.provider)
