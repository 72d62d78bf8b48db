"""Two bundles in a process of their own: what the candidate does there, it cannot do to the line.

The agent gives the process frames, one at a time, and gets back what both bundles make of each. A
crash, a hang or a leak of the candidate ends this process and nothing else. It takes the processor
only where nobody else wants it (nice 19), and both bundles have the same lot.

Frames go through a pipe as they are, all else as msgpack behind its length. `python -m
edge_agent.update.trial_process` is not for people.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import msgspec
import numpy as np

from edge_agent.update.comparison import FrameComparison, FrameJudgement

if TYPE_CHECKING:
    from edge_agent.bundle.manifest import Bundle, Stage
    from edge_agent.frame import ClassMap, Frame, Image
    from edge_agent.inspection.models import LoadedBundle, Models

_LENGTH = struct.Struct("<I")
_MAX_MESSAGE_BYTES = 1 << 20
_STALL_S = 300.0
"""At nice 19 on a busy machine all takes long; a process that says nothing for this long hangs."""
_TICK_S = 0.2
_Message = TypeVar("_Message")


class TrialProcessError(Exception):
    """The process ended, hangs or does not understand: one line on why."""


class ArtifactPick(msgspec.Struct, frozen=True):
    """The artifact of a stage that is run, and on which provider."""

    file: str
    provider: str


class TrialBundle(msgspec.Struct, frozen=True):
    """A verified bundle; without picks the process chooses as the agent does at its start."""

    folder: str
    sha256: str
    gate: ArtifactPick | None = None
    segmenter: ArtifactPick | None = None


class TrialRequest(msgspec.Struct, frozen=True):
    running: TrialBundle
    candidate: TrialBundle
    precision: str
    threads: int
    providers: tuple[str, ...]


class TrialReady(msgspec.Struct, frozen=True):
    """`refusal`: why the candidate cannot run here, or ""; else what it would run."""

    refusal: str = ""
    gate: ArtifactPick | None = None
    segmenter: ArtifactPick | None = None


class TrialFrame(msgspec.Struct, frozen=True):
    """A frame; its bytes follow."""

    frame_id: int
    shape: tuple[int, ...]


# The agent's end.


class TrialProcess:
    """Used as a context; the process is gone at its end."""

    def __init__(
        self, begin: TrialRequest, go_on: Callable[[], None], stall_s: float = _STALL_S
    ) -> None:
        """`go_on` is called while we wait, a few times a second; what it raises ends the wait."""
        self._go_on, self._stall_s = go_on, stall_s
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.update.trial_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Out of reach of the terminal's Ctrl-C: the agent ends it.
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout  # noqa: S101  PIPE says so
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        try:
            self._send(msgspec.msgpack.encode(begin))
        except BaseException:
            self.__exit__()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> TrialProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()

    def ready(self) -> TrialReady:
        return self._receive(TrialReady)

    def look(self, frame: Frame) -> FrameComparison:
        image = np.ascontiguousarray(frame.image)
        self._send(msgspec.msgpack.encode(TrialFrame(frame.frame_id, image.shape)), image.tobytes())
        return self._receive(FrameComparison)

    def _send(self, message: bytes, data: bytes = b"") -> None:
        left = memoryview(_LENGTH.pack(len(message)) + message + data)
        until = time.monotonic() + self._stall_s
        while left:
            self._wait(False, until)
            try:
                left = left[os.write(self._to, left) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._ended() from None
            until = time.monotonic() + self._stall_s

    def _receive(self, kind: type[_Message]) -> _Message:
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > _MAX_MESSAGE_BYTES:
            raise TrialProcessError("the trial's process says what is no answer")
        try:
            return msgspec.msgpack.decode(self._read(length), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TrialProcessError(
                f"the trial's process says what is no answer: {error}"
            ) from None

    def _read(self, size: int) -> bytes:
        data, until = b"", time.monotonic() + self._stall_s
        while len(data) < size:
            self._wait(True, until)
            try:
                more = os.read(self._from, size - len(data))
            except BlockingIOError:
                continue
            if not more:
                raise self._ended()
            data += more
        return data

    def _wait(self, reading: bool, until: float) -> None:
        while True:
            self._go_on()
            lists: tuple[list[int], list[int]] = ([self._from], []) if reading else ([], [self._to])
            if any(select.select(*lists, [], _TICK_S)):
                return
            if time.monotonic() > until:
                raise TrialProcessError(f"says nothing for {self._stall_s:.0f} s: it hangs")

    def _ended(self) -> TrialProcessError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return TrialProcessError(f"crashed in its trial ({how})")


# The process.


def main() -> None:
    # Answers have a pipe of their own: a native library may print what it likes.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.nice(19)
    with contextlib.suppress(OSError):  # if memory runs out, this process is the one to go
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    frames = sys.stdin.buffer
    begin = msgspec.msgpack.decode(_next(frames) or b"", type=TrialRequest)
    ready, models = _open(begin)
    _answer(answers, ready)
    if models is None:
        return
    first = 0
    while message := _next(frames):
        shown = msgspec.msgpack.decode(message, type=TrialFrame)
        data = frames.read(int(np.prod(shown.shape)))
        image = np.frombuffer(data, np.uint8).reshape(shown.shape)
        _answer(answers, _look(models, image, shown.frame_id, first))
        first = 1 - first  # in turn, so that neither always finds the caches warm


def _open(begin: TrialRequest) -> tuple[TrialReady, tuple[Models, Models] | None]:
    from edge_agent.errors import BundleError

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
    from edge_agent.inspection.models import LoadedBundle
    from edge_agent.inspection.runtime import ChosenArtifact, choose

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
    """The picked artifacts only, warm, and held against one golden frame. Raises BundleError.

    The agent uses it too, for what its trial has judged with all of them: the less the processor is
    taken from the line, the better.
    """
    from dataclasses import replace

    from edge_agent.bundle.golden import Golden
    from edge_agent.errors import BundleError
    from edge_agent.inspection.models import LoadedBundle
    from edge_agent.inspection.preprocess import tile_boxes
    from edge_agent.inspection.runtime import ArtifactCandidate, ChosenArtifact, judge

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
    from edge_agent.bundle.reader import load
    from edge_agent.errors import BundleError

    bundle = load(Path(side.folder))
    if bundle.sha256 != side.sha256:  # verified with its signature when it was staged
        raise BundleError(f"{side.folder}: changed since it was staged; stage it again")
    return bundle


def _look(
    models: tuple[Models, Models], image: Image, frame_id: int, first: int
) -> FrameComparison:
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
    from edge_agent.inspection.segmenter import class_map

    began = time.perf_counter()
    try:
        verdict = models.gate.judge(image)
        if not np.isfinite(verdict.score_logit):
            raise ArithmeticError(f"the gate's score is {verdict.score_logit}")
        found = models.segmenter.find(image, verdict.suspect_tiles) if verdict.suspect else ()
    except Exception as error:  # whatever a native library raises
        first = str(error).splitlines() or [""]
        return FrameJudgement(error=f"{type(error).__name__}: {first[0]}"[:300]), None
    judged_ms = 1000 * (time.perf_counter() - began)
    marks = (class_map(found, (image.shape[0], image.shape[1])) > 0).view(np.uint8)
    return FrameJudgement(suspect=verdict.suspect, defects=len(found), judged_ms=judged_ms), marks


def _next(frames: BinaryIO) -> bytes | None:
    """None at the end: the agent is gone, or needs no more."""
    head = frames.read(_LENGTH.size)
    return frames.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else None


def _answer(answers: Any, message: TrialReady | FrameComparison) -> None:
    data = msgspec.msgpack.encode(message)
    answers.write(_LENGTH.pack(len(data)) + data)


if __name__ == "__main__":
    main()
