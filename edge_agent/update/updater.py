"""Update thread of a running agent: carries out the steps that the update record asks for.

The line never waits for it. Each step is recorded before it is taken, so that after a crash at any
moment the next start continues from the record.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from edge_agent.bundle import version_history
from edge_agent.config.config import Config
from edge_agent.errors import BundleError, EdgeError
from edge_agent.inspection.models import LoadedBundle, Models, trust_of
from edge_agent.messages.events import utc
from edge_agent.messages.state import TrialReport
from edge_agent.pipeline.pipeline import Inspection
from edge_agent.update import failpoints
from edge_agent.update import record as update
from edge_agent.update.bundle_store import BundleStore, slot_of
from edge_agent.update.frame_sampler import FrameSampler
from edge_agent.update.probation import Probation
from edge_agent.update.record import BundleSlot, StaleRecord, UpdateError, UpdateRecord
from edge_agent.update.shadow import rehearse
from edge_agent.update.startup import Load, StartupBundle
from edge_agent.update.trial_process import TrialBundle
from edge_agent.update.trial_worker import open_picked

_POLL_S = 0.5
_AGAIN_S = 5.0

_log = logging.getLogger(__name__)


class InspectionControl(Protocol):
    """Interface to the pipeline: observe inspected frames, replace the models."""

    observer: Callable[[Inspection], None] | None

    def use(self, models: Models) -> None:
        """Use new models from the next frame on."""
        ...


class _Enough(Exception):
    """Signal that the agent stops, or that the update was given up by hand."""


class Updater(threading.Thread):
    """Thread that tries, switches, confirms and rolls back bundles."""

    def __init__(
        self,
        *,
        config: Config,
        slots: BundleStore,
        line: InspectionControl,
        running: StartupBundle,
        load: Load,
        changed: Callable[[LoadedBundle, UpdateRecord], None],
    ) -> None:
        """`changed` is called with the running bundle and the record at each change of either."""
        super().__init__(name="update", daemon=True)
        self._config, self._slots, self._line, self._load = config, slots, line, load
        self._running, self._changed = running, changed
        self._before: StartupBundle | None = None
        self._stopping, self._nudge = threading.Event(), threading.Event()
        self._seen: object = None
        self._told: tuple[str, UpdateRecord] | None = None
        self._picker = FrameSampler()
        self._proof: Probation | None = None
        self._record = UpdateRecord()

    def stop(self) -> None:
        """Ask the thread to end; the caller joins it."""
        self._stopping.set()
        self._nudge.set()

    def run(self) -> None:
        """Poll the record and take its steps until `stop`; errors are logged and retried."""
        self._line.observer = self._observe
        while not self._stopping.is_set():
            wait_s = _POLL_S
            try:
                self._come_round()
            except _Enough:
                pass
            except StaleRecord as error:
                _log.info("%s", error)
            except EdgeError as error:
                _log.error("%s", error)
                wait_s = _AGAIN_S
            except Exception:  # one failed update must not end the thread
                _log.exception("update")
                wait_s = _AGAIN_S
            self._nudge.wait(wait_s)
            self._nudge.clear()
        self._line.observer = None

    def _observe(self, inspected: Inspection) -> None:
        """Offer a frame to sampler and probation, in the inference thread."""
        self._picker.see(inspected)
        proof = self._proof
        if proof and proof.see(inspected):
            self._nudge.set()  # react at once: the next frame may fail too

    # Steps in the update thread

    def _come_round(self) -> None:
        """Take the one step that the record asks for now."""
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

    def _read(self) -> UpdateRecord:
        """Return the record, read again only if it has changed; repair a damaged one."""
        mark = self._slots.mark()
        if mark != self._seen:
            self._record, self._seen = self._slots.read(), mark
            if self._slots.damaged:
                self._record = self._slots.change(lambda record: record)
        return self._record

    def _tell(self, record: UpdateRecord) -> None:
        """Call `changed` if the running bundle or the record has changed."""
        if self._told != (self._running.sha256, record):
            self._told = (self._running.sha256, record)
            self._changed(self._running.stages, record)

    def _go_on(self) -> None:
        """Raise _Enough if the agent stops or the trial is no longer wanted."""
        if self._stopping.is_set():
            raise _Enough
        record = self._read()
        self._tell(record)
        if record.phase != "trying":
            raise _Enough

    def _try(self, slot: BundleSlot) -> None:
        """Try the candidate in shadow; switch to it, or give it up."""
        record = self._slots.change(lambda r: update.begun(r, slot, update.ATTEMPTS, _now()))
        self._tell(record)
        if record.phase != "trying":
            _log.error("update: %s: %s", slot, record.last.reason if record.last else "")
            return
        _log.info("update: %s is tried beside what runs", slot)
        failpoints.reach("begun")
        tried = rehearse(
            self._config,
            self._running.stages,
            TrialBundle(str(self._slots.folder(slot)), slot.sha256),
            self._picker,
            go_on=self._go_on,
        )
        if tried.objection or tried.candidate is None:
            self._give_up(slot, tried.objection, tried.report)
            return
        failpoints.reach("tried")
        try:
            stages = open_picked(tried.candidate, self._config.threads)
        except BundleError as error:
            self._give_up(slot, str(error), tried.report)
            return
        self._switch(slot, stages, tried.report)

    def _switch(self, slot: BundleSlot, stages: LoadedBundle, report: TrialReport | None) -> None:
        """Record the switch, then use the new bundle from the next frame on."""
        before = self._running
        old, sha256 = slot_of(before.stages.bundle, forced=before.forced), before.configured_sha256
        try:
            if before.stages.bundle.folder == self._slots.folder(old):
                record = self._slots.change(
                    lambda r: update.switched(r, slot, old, r.configured_sha256, report)
                )
            else:
                # The configured folder may be overwritten: roll back to a copy in the store.
                record = self._slots.stage(
                    before.stages.bundle.folder,
                    trust_of(self._config),
                    lambda r, copy: update.switched(
                        r, slot, slot_of(copy, forced=before.forced), sha256, report
                    ),
                )
        except StaleRecord:
            raise
        except (UpdateError, BundleError) as error:
            self._give_up(slot, f"there would be no way back: {error}", report)
            return
        failpoints.reach("switched")
        self._before = before
        self._proof = Probation(slot.sha256, self._config.update)
        self._use(StartupBundle(stages, slot.forced, before.configured_sha256))
        failpoints.reach("used")
        self._tell(record)
        _log.info("update: %s runs now, and has to prove itself", slot)

    def _return_to(self, slot: BundleSlot) -> None:
        """Switch to a bundle on a person's order; it ran here before, so it needs no trial."""
        try:
            stages = self._load(self._slots.folder(slot), True)
        except BundleError as error:
            self._give_up(slot, str(error), None)
            return
        self._switch(slot, stages, None)

    def _prove(self, slot: BundleSlot) -> None:
        """Confirm the bundle on probation, or give it up."""
        if self._proof is None:  # the probation began before this start
            self._proof = Probation(slot.sha256, self._config.update)
        # In this order: a last frame that arrives in between is judged now or in the next round.
        complete, fault = self._proof.is_complete, self._proof.fault
        if fault:
            self._give_up(slot, fault, None)
        elif complete:
            record = self._slots.change(lambda r: update.confirmed(r, slot, _now()))
            failpoints.reach("confirmed")
            version_history.remember(self._config.state_dir, self._running.stages.bundle)
            failpoints.reach("remembered")
            self._proof = self._before = None
            self._tell(record)
            _log.info("update: %s is committed", slot)

    def _give_up(self, slot: BundleSlot, why: str, report: TrialReport | None) -> None:
        """Record that the candidate is refused or rolled back, and log the reason."""
        record = self._slots.change(lambda r: update.failed(r, slot, why, _now(), report))
        _log.error("update: %s is not used: %s", slot, why)
        failpoints.reach("given up")
        self._tell(record)

    def _go_back(self, record: UpdateRecord) -> None:
        """Run the record's active bundle again, after a rollback or a person's order."""
        self._proof = None
        before, self._before = self._before, None
        slot = record.active
        if before is None or before.sha256 != (slot.sha256 if slot else before.configured_sha256):
            folder = self._slots.folder(slot) if slot else None
            stages = self._load(folder, slot.forced if slot else self._running.forced)
            before = StartupBundle(
                stages, bool(slot and slot.forced), self._running.configured_sha256
            )
        self._use(before)
        failpoints.reach("went back")
        self._tell(record)
        _log.info("update: %s runs again", slot_of(before.stages.bundle))

    def _use(self, running: StartupBundle) -> None:
        self._running = running
        self._line.use(running.stages.models)


def _now() -> str:
    return utc(time.time_ns())
