"""Trial of a candidate in shadow of the running bundle, on frames of the line.

It runs in a process of its own: the line is not affected, and a failure counts against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from edge_agent.config.config import Config, UpdateConfig
from edge_agent.inspection.models import LoadedBundle
from edge_agent.messages.state import TrialReport
from edge_agent.update import comparison as trial
from edge_agent.update import failpoints
from edge_agent.update.frame_sampler import FrameSampler
from edge_agent.update.trial_process import (
    ArtifactPick,
    TrialBundle,
    TrialProcess,
    TrialProcessError,
    TrialRequest,
)

_FRAME_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """Result of a trial.

    `candidate` names the artifacts it would run, None if unknown. `objection` is the reason why it
    may not take over, or "".
    """

    candidate: TrialBundle | None
    report: TrialReport | None
    objection: str


def rehearse(
    config: Config,
    running: LoadedBundle,
    candidate: TrialBundle,
    picker: FrameSampler,
    *,
    go_on: Callable[[], None],
) -> ShadowResult:
    """Try a candidate on frames of the line until the trial is over, and return the result.

    `go_on` is called a few times a second; an exception from it ends the trial and is raised.
    """
    begin = TrialRequest(
        running=TrialBundle(
            str(running.bundle.folder),
            running.bundle.sha256,
            ArtifactPick(running.gate.artifact.file.name, running.gate.provider),
            ArtifactPick(running.segmenter.artifact.file.name, running.segmenter.provider),
        ),
        candidate=candidate,
        precision=config.agent.precision,
        threads=config.threads,
        providers=config.agent.providers,
    )
    try:
        with TrialProcess(begin, go_on) as trial_process:
            ready = trial_process.ready()
            if ready.refusal:
                return ShadowResult(None, None, ready.refusal)
            failpoints.reach("opened")
            comparison = _compared(trial_process, picker, config.update, go_on)
    except TrialProcessError as error:
        return ShadowResult(None, None, str(error))
    picked = replace(candidate, gate=ready.gate, segmenter=ready.segmenter) if ready.gate else None
    return ShadowResult(picked, comparison.report(), trial.objection(comparison, config.update))


def _compared(
    trial_process: TrialProcess,
    picker: FrameSampler,
    rules: UpdateConfig,
    go_on: Callable[[], None],
) -> trial.BundleComparison:
    """Compare both bundles on sampled frames until the trial is over."""
    comparison = trial.BundleComparison()
    began_s = time.monotonic()
    with picker.picking():
        while not trial.is_over(comparison, time.monotonic() - began_s, rules):
            go_on()
            inspected = picker.take(_FRAME_WAIT_S)
            if inspected is None:
                continue
            comparison.add(trial_process.look(inspected.frame), inspected.judged_ms)
            failpoints.reach(f"looked {comparison.frames}")
    return comparison
