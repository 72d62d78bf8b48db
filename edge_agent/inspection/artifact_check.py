"""Check of a bundle on this machine: test every artifact, show which one the agent runs."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_agent.bundle.manifest import Bundle
from edge_agent.inspection.runtime import SelfTestResult, candidates, fastest, judge


@dataclass(frozen=True, slots=True)
class ArtifactCheck:
    """Result of one artifact on one runtime. `runtime` is "" if the artifact did not load.

    `difference` is the deviation from the golden outputs (gate: of the logit; segmenter: mean, of
    the probability), or None if it was not measured. Times are for one golden frame, all tiles
    included.
    """

    stage: str
    artifact: str
    file: str
    runtime: str
    difference: float | None
    allowed: float
    p50_ms: float | None
    p95_ms: float | None
    verdict: Literal["chosen", "works", "refused"]
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of a bundle check. `fit` is True if both stages have a usable artifact."""

    bundle: str
    version: int
    sha256: str
    machine: str
    python: str
    threads: int
    runs: int
    fit: bool
    rows: tuple[ArtifactCheck, ...]


def verify(
    bundle: Bundle,
    *,
    threads: int,
    runs: int,
    providers: Sequence[str],
    trying: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Test all artifacts of both stages as the agent does at its start, timed `runs` times each.

    `trying` receives the name of each candidate before its test. Timings vary, so the agent may
    choose another artifact of nearly the same speed at its own start.
    """
    manifest = bundle.manifest
    rows: list[ArtifactCheck] = []
    for name, stage in (("gate", manifest.gate), ("segmenter", manifest.segmenter)):
        judged = []
        for candidate in candidates(stage, providers):
            trying(f"{name} {candidate.label}")
            judged.append(judge(bundle, stage, candidate, threads=threads, runs=runs))
        best = fastest(judged)
        fit = sum(not one.refusal for one in judged)
        rows += [_row(name, one, one is best, fit) for one in judged]
    chosen = {row.stage for row in rows if row.verdict == "chosen"}
    return Verification(
        bundle=manifest.name,
        version=manifest.version,
        sha256=bundle.sha256,
        machine=platform.machine(),
        python=platform.python_version(),
        threads=threads,
        runs=runs,
        fit=chosen == {"gate", "segmenter"},
        rows=tuple(rows),
    )


def _row(stage: str, judged: SelfTestResult, best: bool, fit: int) -> ArtifactCheck:
    artifact, times_ms = judged.candidate.artifact, judged.times_ms
    verdict: Literal["chosen", "works", "refused"] = "works"
    reason = judged.refusal
    if judged.refusal:
        verdict = "refused"
    elif best:
        verdict = "chosen"
        only = f"fastest of {fit} that reproduce" if fit > 1 else "the only one that reproduces"
        reason = f"{only} the golden outputs"
    return ArtifactCheck(
        stage=stage,
        artifact=judged.candidate.label,
        file=artifact.file.name,
        runtime=judged.runtime_name,
        difference=judged.difference,
        allowed=artifact.golden_tolerance,
        p50_ms=judged.p50_ms if times_ms else None,
        p95_ms=float(np.percentile(times_ms, 95)) if times_ms else None,
        verdict=verdict,
        reason=reason,
    )


def table(found: Verification) -> str:
    """Format the result as a text table with the reason on each artifact's line."""
    cells = [
        ("stage", "artifact", "runtime", "difference/allowed", "p50 ms", "p95 ms", "verdict"),
        *(
            (
                row.stage,
                row.artifact,
                row.runtime or "-",
                "-" if row.difference is None else f"{row.difference:.2g}/{row.allowed:.2g}",
                "-" if row.p50_ms is None else f"{row.p50_ms:.2f}",
                "-" if row.p95_ms is None else f"{row.p95_ms:.2f}",
                row.verdict + (f": {row.reason}" if row.reason else ""),
            )
            for row in found.rows
        ),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[6]])
        for line in cells
    ]
    return "\n".join(
        [
            f"{found.bundle} version {found.version}, sha256 {found.sha256[:12]}: "
            f"{found.machine}, Python {found.python}, {found.threads} threads, {found.runs} runs",
            *lines,
            *(_pick(stage, found.rows) for stage in ("gate", "segmenter")),
        ]
    )


def _pick(stage: str, rows: Sequence[ArtifactCheck]) -> str:
    for row in rows:
        if (row.stage, row.verdict) == (stage, "chosen"):
            return f"{stage}: the agent runs {row.artifact} on {row.runtime}, {row.reason}"
    return f"{stage}: no artifact can be used here"
