"""Trial process that compares two bundles, started by `TrialProcess`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.bundle.golden import Golden
from edge_agent.bundle.manifest import Bundle, Stage
from edge_agent.bundle.reader import load
from edge_agent.errors import BundleError, first_line
from edge_agent.frame import ClassMap, Image
from edge_agent.inspection.models import LoadedBundle, Models
from edge_agent.inspection.preprocess import tile_boxes
from edge_agent.inspection.runtime import ArtifactCandidate, ChosenArtifact, choose, judge
from edge_agent.inspection.segmenter import class_map
from edge_agent.update.comparison import FrameComparison, FrameJudgement
from edge_agent.update.trial_process import (
    ArtifactPick,
    TrialBundle,
    TrialFrame,
    TrialReady,
    TrialRequest,
)


def main() -> None:
    """Answer the request and each frame until the agent closes its end."""
    handle = int(sys.argv[1])
    os.set_inheritable(handle, False)  # a child of a native library would keep the pipe open
    with contextlib.suppress(OSError):  # if memory runs out, the kernel ends this process
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with (
        Connection(handle) as connection,
        contextlib.suppress(EOFError, ConnectionError),  # the agent has ended or is done
    ):
        begin = msgspec.msgpack.decode(connection.recv_bytes(), type=TrialRequest)
        ready, models = open_models(begin)
        connection.send_bytes(msgspec.msgpack.encode(ready))
        first = 0
        while models:
            shown = msgspec.msgpack.decode(connection.recv_bytes(), type=TrialFrame)
            image = np.frombuffer(connection.recv_bytes(), np.uint8).reshape(shown.shape)
            compared = compare(models, image, shown.frame_id, first)
            connection.send_bytes(msgspec.msgpack.encode(compared))
            first = 1 - first  # alternate, so that warm caches favour neither bundle


def open_models(begin: TrialRequest) -> tuple[TrialReady, tuple[Models, Models] | None]:
    """Load both bundles; return no models if the candidate cannot run here."""
    running = open_picked(begin.running, begin.threads).models
    try:
        candidate = _chosen(begin)
    except BundleError as error:
        return TrialReady(str(error)), None
    picks = [
        ArtifactPick(c.artifact.file.name, c.provider)
        for c in (candidate.gate, candidate.segmenter)
    ]
    return TrialReady("", *picks), (running, candidate.models)


def _chosen(begin: TrialRequest) -> LoadedBundle:
    """Load the candidate and choose its artifacts as the agent does. Raises BundleError."""
    bundle = _loaded(begin.candidate)

    def chosen(stage: Stage) -> ChosenArtifact:
        return choose(
            bundle,
            stage,
            precision=begin.precision,
            threads=begin.threads,
            providers=begin.providers,
        )

    return LoadedBundle(bundle, chosen(bundle.manifest.gate), chosen(bundle.manifest.segmenter))


def open_picked(side: TrialBundle, threads: int) -> LoadedBundle:
    """Open only the picked artifacts, checked on one golden frame. Raises BundleError.

    The agent uses it too: its trial has checked all golden frames already, and a shorter check
    takes less processor time from the line.
    """
    whole = _loaded(side)

    def opened(stage: Stage, pick: ArtifactPick | None) -> ChosenArtifact:
        artifact = next((a for a in stage.artifacts if pick and a.file.name == pick.file), None)
        if artifact is None or pick is None:
            raise BundleError(f"{side.folder}: {pick} is not in it")
        image = whole.golden.images[0]
        tiles = len(tile_boxes((image.shape[0], image.shape[1]), stage.input))
        outputs = {n: o[:tiles] for n, o in whole.golden.outputs.items() if n == pick.file}
        bundle = replace(whole, golden=Golden((image,), outputs))
        judged = judge(
            bundle, stage, ArtifactCandidate(artifact, pick.provider), threads=threads, runs=1
        )
        if judged.runtime is None:
            raise BundleError(f"{side.folder}: {artifact.label}: {judged.refusal}")
        return ChosenArtifact(artifact, judged.runtime, judged.p50_ms, (), pick.provider)

    manifest = whole.manifest
    return LoadedBundle(
        whole, opened(manifest.gate, side.gate), opened(manifest.segmenter, side.segmenter)
    )


def _loaded(side: TrialBundle) -> Bundle:
    """Load a bundle and check that it is unchanged. Raises BundleError."""
    bundle = load(Path(side.folder))
    if bundle.sha256 != side.sha256:  # the signature was verified when it was staged
        raise BundleError(f"{side.folder}: changed since it was staged; stage it again")
    return bundle


def compare(
    models: tuple[Models, Models], image: Image, frame_id: int, first: int
) -> FrameComparison:
    """Judge a frame with both bundles, `models[first]` first, and compare their masks."""
    found: dict[int, tuple[FrameJudgement, ClassMap | None]] = {}
    for index in (first, 1 - first):
        found[index] = _judged(models[index], image)
    (running, here), (candidate, there) = found[0], found[1]
    if here is None or there is None:
        return FrameComparison(frame_id=frame_id, running=running, candidate=candidate)
    return FrameComparison(
        frame_id=frame_id,
        running=running,
        candidate=candidate,
        both_px=int(np.count_nonzero(here & there)),
        either_px=int(np.count_nonzero(here | there)),
    )


def _judged(models: Models, image: Image) -> tuple[FrameJudgement, ClassMap | None]:
    """Return the judgement and the defect mask (uint8, 0 or 1); the mask is None on failure."""
    began = time.perf_counter()
    try:
        verdict = models.gate.judge(image)
        if not np.isfinite(verdict.score_logit):
            raise ArithmeticError(f"the gate's score is {verdict.score_logit}")
        found = models.segmenter.find(image, verdict.suspect_tiles) if verdict.suspect else ()
    except Exception as error:  # a native library may raise anything
        return FrameJudgement(error=f"{type(error).__name__}: {first_line(error)}"[:300]), None
    judged_ms = 1000 * (time.perf_counter() - began)
    marks = (class_map(found, (image.shape[0], image.shape[1])) > 0).view(np.uint8)
    return FrameJudgement(suspect=verdict.suspect, defects=len(found), judged_ms=judged_ms), marks


if __name__ == "__main__":
    main()
