"""The update in a running agent: what the record asks for is done, in a thread of its own.

The line waits for none of it. It gives a copy of a frame when one is wanted, and takes new models
between two frames. Each step is written (`slots`, by the rules of `update`) before it is taken, so
at any moment the agent may die and the next one goes on from the record.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from edge_agent import trial, update, versions
from edge_agent.config import Config
from edge_agent.errors import BundleError, EdgeError
from edge_agent.events import TrialReport, UpdateBundle, UpdateOutcome, UpdateState, utc
from edge_agent.parcel import manifest_sha256
from edge_agent.pipeline import Inspected
from edge_agent.sandbox import Begin, Pick, Sandbox, SandboxError, Side, open_picked
from edge_agent.slots import Slots, slot_of
from edge_agent.stages import Models, Stages, trust_of
from edge_agent.update import Record, Slot, Stale, UpdateError

_POLL_S = 0.5
_AGAIN_S = 5.0
_MOST_PASSED = 4

Load = Callable[[Path | None, bool], Stages]
"""`load(folder, allow_older)`: verified and chosen; None is the configuration's bundle."""

_log = logging.getLogger(__name__)


class Line(Protocol):
    """What is needed of the pipeline."""

    observer: Callable[[Inspected], None] | None

    def use(self, models: Models) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """`forced`: it may be older than what ran before."""

    stages: Stages
    forced: bool
    configured_sha256: str

    @property
    def sha256(self) -> str:
        return self.stages.bundle.sha256


class _Proof:
    """How the bundle does that runs and is not trusted yet; counted by the inference thread."""

    def __init__(self, sha256: str, frames: int) -> None:
        self.sha256, self.frames, self.failed = sha256, 0, 0
        self.judged_ms: deque[float] = deque(maxlen=frames)


class _Enough(Exception):
    """The agent stops, or the update was given up by hand."""


def to_run(config: Config) -> tuple[Path | None, bool]:
    """The folder of the bundle that the next start begins with, None for the configuration's, and
    whether it may be older than what ran. Writes nothing."""
    slots = Slots(config.state_dir)
    record = slots.read()
    configured = manifest_sha256(Path(config.agent.bundle))
    if record.active is None or configured not in ("", record.configured_sha256):
        return None, False
    return slots.folder(record.active), record.active.forced


def begin(config: Config, slots: Slots, load: Load, *, allow_older: bool) -> Running:
    """The bundle to start with, by the record. Raises what `load` raises for the last one left."""
    folder = Path(config.agent.bundle)
    configured = manifest_sha256(folder)

    def changed(to: Callable[[Record], Record]) -> Record:
        try:
            return slots.change(to)
        except UpdateError as error:  # the line does not stop for a disk that is full
            _log.error("%s", error)
            return to(record)

    try:
        slots.tidy()
    except UpdateError as error:
        _log.error("%s", error)
    record = slots.read()
    if record.active and configured not in ("", record.configured_sha256):
        stages = _put_there_by_hand(load, allow_older)
        if stages:
            before = record.previous if record.phase == "proving" else record.active
            changed(partial(update.configured, before=before))
            return Running(stages, allow_older, stages.bundle.sha256)
    if record.phase == "staged" and not record.trial and record.active and record.candidate:
        back, active = record.candidate, record.active
        record = changed(lambda r: update.switched(r, back, active, r.configured_sha256))
    elif record.phase == "proving":
        record = changed(lambda r: update.started(r, config.update.attempts, _now()))
    while record.active:
        slot = record.active
        try:
            stages = load(slots.folder(slot), slot.forced or allow_older)
            return Running(stages, slot.forced or allow_older, configured)
        except BundleError as error:
            _log.error("%s does not run any more: %s", slot, error)
            record = changed(partial(update.lost, reason=str(error), time=_now()))
    stages = load(None, allow_older)
    return Running(stages, allow_older, stages.bundle.sha256)


def _put_there_by_hand(load: Load, allow_older: bool) -> Stages | None:
    """The configuration's bundle, which is another one than when an update took its place."""
    try:
        stages = load(None, allow_older)
    except BundleError as error:
        _log.error("the new bundle in agent.bundle is not used: %s", error)
        return None
    _log.info("agent.bundle is another one than before: it runs now")
    return stages


def spare(slots: Slots) -> None:
    """The agent ends in good order; what it tried was not the reason."""
    try:
        if slots.read().phase in ("trying", "proving"):
            slots.change(update.spared)
    except UpdateError as error:
        _log.error("%s", error)


class Updater(threading.Thread):
    def __init__(
        self,
        *,
        config: Config,
        slots: Slots,
        line: Line,
        running: Running,
        load: Load,
        changed: Callable[[Stages, Record], None],
        at: Callable[[str], None] = lambda step: None,
    ) -> None:
        """`changed` is told what runs and where the update stands, at each change of the two."""
        super().__init__(name="update", daemon=True)
        self._config, self._slots, self._line, self._load = config, slots, line, load
        self._running, self._changed, self._at = running, changed, at
        self._before: Running | None = None
        self._stopping, self._nudge = threading.Event(), threading.Event()
        self._seen: object = None
        self._told: tuple[str, Record] | None = None
        self._wanted: queue.Queue[Inspected] = queue.Queue(1)
        self._trying, self._to_pass = False, 0
        self._proof: _Proof | None = None
        self._record = Record()

    def stop(self) -> None:
        self._stopping.set()
        self._nudge.set()

    def run(self) -> None:
        self._line.observer = self._observe
        while not self._stopping.is_set():
            wait_s = _POLL_S
            try:
                self._come_round()
            except _Enough:
                pass
            except Stale as error:
                _log.info("%s", error)
            except EdgeError as error:
                _log.error("%s", error)
                wait_s = _AGAIN_S
            except Exception:  # an update must not end because of one that went wrong
                _log.exception("update")
                wait_s = _AGAIN_S
            self._nudge.wait(wait_s)
            self._nudge.clear()
        self._line.observer = None

    # The inference thread.

    def _observe(self, inspected: Inspected) -> None:
        if self._trying and not inspected.failed:
            if not self._wanted.empty():
                # What a roll stamps comes at a steady pace, and so would frames taken whenever
                # the sandbox is free: they could miss all of it, or see nothing else.
                self._to_pass = random.randrange(_MOST_PASSED + 1)  # noqa: S311 - no secret
            elif self._to_pass:
                self._to_pass -= 1
            else:
                # The camera may use its buffer again.
                frame = replace(inspected.frame, image=inspected.frame.image.copy())
                self._wanted.put_nowait(replace(inspected, frame=frame))
        proof = self._proof
        if proof and inspected.bundle_sha256 == proof.sha256:
            proof.frames += 1
            proof.failed += inspected.failed
            if inspected.failed:
                self._nudge.set()  # each further frame might fail too
            if not inspected.failed:
                proof.judged_ms.append(inspected.judged_ms)

    # The thread.

    def _come_round(self) -> None:
        record = self._read()
        self._tell(record)
        active = record.active.sha256 if record.active else self._running.configured_sha256
        if record.phase != "proving" and active != self._running.sha256:
            self._go_back(record)
        elif record.phase in ("staged", "trying") and record.candidate:
            if record.trial:
                self._try(record.candidate)
            else:
                self._return_to(record.candidate)
        elif record.phase == "proving" and record.candidate:
            self._prove(record.candidate)

    def _read(self) -> Record:
        mark = self._slots.mark()
        if mark != self._seen:
            self._record, self._seen = self._slots.read(), mark
            if self._slots.damaged:
                self._record = self._slots.change(lambda record: record)
        return self._record

    def _tell(self, record: Record) -> None:
        if self._told != (self._running.sha256, record):
            self._told = (self._running.sha256, record)
            self._changed(self._running.stages, record)

    def _go_on(self) -> None:
        """Raises _Enough where the update in hand is not wanted any more."""
        if self._stopping.is_set():
            raise _Enough
        record = self._read()
        self._tell(record)
        if record.phase != "trying":
            raise _Enough

    def _try(self, slot: Slot) -> None:
        rules = self._config.update
        record = self._slots.change(lambda r: update.begun(r, slot, rules.attempts, _now()))
        self._tell(record)
        if record.phase != "trying":
            _log.error("update: %s: %s", slot, record.last.reason if record.last else "")
            return
        _log.info("update: %s is tried beside what runs", slot)
        self._at("begun")
        try:
            ready, report, why = self._compare(slot)
        except SandboxError as error:
            ready, report, why = None, None, str(error)
        if why or ready is None or ready[0] is None:
            self._give_up(slot, why, report)
            return
        self._at("tried")
        picks = Side(str(self._slots.folder(slot)), slot.sha256, *ready)
        try:
            stages = open_picked(picks, self._config.threads)
        except BundleError as error:
            self._give_up(slot, str(error), report)
            return
        self._switch(slot, stages, report)

    def _compare(
        self, slot: Slot
    ) -> tuple[tuple[Pick | None, Pick | None], TrialReport | None, str]:
        """What the candidate would run, how it compares, and why it may not, or ""."""
        config, now = self._config, self._running.stages
        begin = Begin(
            running=Side(
                str(now.bundle.folder),
                now.bundle.sha256,
                Pick(now.gate.artifact.file.name, now.gate.provider),
                Pick(now.segmenter.artifact.file.name, now.segmenter.provider),
            ),
            candidate=Side(str(self._slots.folder(slot)), slot.sha256),
            precision=config.agent.precision,
            threads=config.threads,
            providers=config.agent.providers,
        )
        comparison = trial.Comparison()
        with Sandbox(begin, self._go_on) as sandbox:
            ready = sandbox.ready()
            if ready.refusal:
                return (None, None), None, ready.refusal
            self._at("opened")
            self._trying, began_s = True, time.monotonic()
            try:
                while not trial.is_over(
                    comparison.frames, time.monotonic() - began_s, config.update
                ) and not trial.hopeless(comparison, config.update):
                    self._go_on()
                    try:
                        inspected = self._wanted.get(timeout=0.1)
                    except queue.Empty:
                        continue
                    comparison.add(sandbox.look(inspected.frame), inspected.judged_ms)
                    self._at(f"looked {comparison.frames}")
            finally:
                self._trying = False
                _empty(self._wanted)
        report = comparison.report()
        return (ready.gate, ready.segmenter), report, trial.objection(comparison, config.update)

    def _switch(self, slot: Slot, stages: Stages, report: TrialReport | None) -> None:
        """Written first; then the next frame is the new bundle's."""
        before = self._running
        old, sha256 = slot_of(before.stages.bundle, forced=before.forced), before.configured_sha256
        try:
            if before.stages.bundle.folder == self._slots.folder(old):
                record = self._slots.change(
                    lambda r: update.switched(r, slot, old, r.configured_sha256, report)
                )
            else:
                # The configuration's folder may be written over: the way back is our own copy.
                record = self._slots.stage(
                    before.stages.bundle.folder,
                    trust_of(self._config),
                    self._config.update.max_bytes,
                    lambda r, copy: update.switched(
                        r, slot, slot_of(copy, forced=before.forced), sha256, report
                    ),
                )
        except Stale:
            raise
        except (UpdateError, BundleError) as error:
            self._give_up(slot, f"there would be no way back: {error}", report)
            return
        self._at("switched")
        self._before = before
        self._proof = _Proof(slot.sha256, self._config.update.prove_frames)
        self._use(Running(stages, slot.forced, before.configured_sha256))
        self._at("used")
        self._tell(record)
        _log.info("update: %s runs now, and has to prove itself", slot)

    def _return_to(self, slot: Slot) -> None:
        """By hand: it ran here before, so it is not tried beside the other."""
        try:
            stages = self._load(self._slots.folder(slot), True)
        except BundleError as error:
            self._give_up(slot, str(error), None)
            return
        self._switch(slot, stages, None)

    def _prove(self, slot: Slot) -> None:
        rules = self._config.update
        if self._proof is None:  # proving since before this start
            self._proof = _Proof(slot.sha256, rules.prove_frames)
        proof = self._proof
        why = trial.fault_of_proof(proof.frames, proof.failed, tuple(proof.judged_ms), rules)
        if why:
            self._give_up(slot, why, None)
        elif proof.frames >= rules.prove_frames:
            record = self._slots.change(lambda r: update.confirmed(r, slot, _now()))
            self._at("confirmed")
            versions.remember(self._config.state_dir, self._running.stages.bundle)
            self._at("remembered")
            self._proof = self._before = None
            self._tell(record)
            _log.info("update: %s is committed", slot)

    def _give_up(self, slot: Slot, why: str, report: TrialReport | None) -> None:
        record = self._slots.change(lambda r: update.failed(r, slot, why, _now(), report))
        _log.error("update: %s is not used: %s", slot, why)
        self._at("given up")
        self._tell(record)

    def _go_back(self, record: Record) -> None:
        """The record's active bundle in the place of what runs: what proved nothing, or a hand."""
        self._proof = None
        before, self._before = self._before, None
        slot = record.active
        if before is None or before.sha256 != (slot.sha256 if slot else before.configured_sha256):
            folder = self._slots.folder(slot) if slot else None
            stages = self._load(folder, slot.forced if slot else self._running.forced)
            before = Running(stages, bool(slot and slot.forced), self._running.configured_sha256)
        self._use(before)
        self._at("went back")
        self._tell(record)
        _log.info("update: %s runs again", slot_of(before.stages.bundle))

    def _use(self, running: Running) -> None:
        self._running = running
        self._line.use(running.stages.models)


def state_of(record: Record) -> UpdateState | None:
    """As it is published; None where there never was an update."""
    if record == Record():
        return None
    last = record.last
    return UpdateState(
        phase=record.phase,
        candidate=_named(record.candidate) if record.candidate else None,
        last=UpdateOutcome(
            result=last.result,
            bundle=_named(last.bundle),
            reason=last.reason,
            time=last.time,
            report=last.report,
        )
        if last
        else None,
    )


def _named(slot: Slot) -> UpdateBundle:
    return UpdateBundle(name=slot.name, version=slot.version, sha256=slot.sha256)


def _now() -> str:
    return utc(time.time_ns())


def _empty(wanted: queue.Queue[Inspected]) -> None:
    while True:
        try:
            wanted.get_nowait()
        except queue.Empty:
            return
