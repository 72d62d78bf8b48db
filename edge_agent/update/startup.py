"""Choice of the bundle that a start runs, by the update record.

The record is written before a bundle is loaded, so a bundle that crashes the agent is counted and
at last rolled back. A bundle that does not load never stops the line while another one does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_agent.bundle.archive import manifest_sha256
from edge_agent.config.config import Config
from edge_agent.errors import BundleError
from edge_agent.inspection.models import LoadedBundle
from edge_agent.messages.events import utc
from edge_agent.update import record as update
from edge_agent.update.bundle_store import BundleStore
from edge_agent.update.record import UpdateError, UpdateRecord

Load = Callable[[Path | None, bool], LoadedBundle]
"""`load(folder, allow_older)` returns the loaded bundle; None is the configured bundle."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class StartupBundle:
    """Bundle that runs; `forced`: it may be older than one that ran before."""

    stages: LoadedBundle
    forced: bool
    configured_sha256: str

    @property
    def sha256(self) -> str:
        """Return the hash of the running bundle's `bundle.json`."""
        return self.stages.bundle.sha256


def to_run(config: Config) -> tuple[Path | None, bool]:
    """Return the bundle's folder for the next start, and True if an older version is permitted.

    The folder is None for the configured bundle. Nothing is written.
    """
    slots = BundleStore(config.state_dir)
    record = slots.read()
    configured = manifest_sha256(Path(config.agent.bundle))
    if record.active is None or configured not in ("", record.configured_sha256):
        return None, False
    return slots.folder(record.active), record.active.forced


def begin(config: Config, slots: BundleStore, load: Load, *, allow_older: bool) -> StartupBundle:
    """Load the bundle to start with, and record the start before it runs.

    A bundle that a person has put in the configured place since counts more than the record.

    Args:
        config: The agent's configuration.
        slots: The store and record of the update.
        load: Loads a bundle; raises BundleError.
        allow_older: Permit a version below the highest that ran here.

    Returns:
        The loaded bundle.

    Raises:
        BundleError: The last bundle left cannot be loaded.
    """
    folder = Path(config.agent.bundle)
    configured = manifest_sha256(folder)

    def changed(to: Callable[[UpdateRecord], UpdateRecord]) -> UpdateRecord:
        try:
            return slots.change(to)
        except UpdateError as error:  # a full disk must not stop the line
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
            return StartupBundle(stages, allow_older, stages.bundle.sha256)
    if record.phase == "staged" and not record.trial and record.active and record.candidate:
        back, active = record.candidate, record.active
        record = changed(lambda r: update.switched(r, back, active, r.configured_sha256))
    elif record.phase == "proving":
        record = changed(lambda r: update.started(r, update.ATTEMPTS, _now()))
    while record.active:
        slot = record.active
        try:
            stages = load(slots.folder(slot), slot.forced or allow_older)
            return StartupBundle(stages, slot.forced or allow_older, configured)
        except BundleError as error:
            _log.error("%s does not run any more: %s", slot, error)
            record = changed(partial(update.lost, reason=str(error), time=_now()))
    stages = load(None, allow_older)
    return StartupBundle(stages, allow_older, stages.bundle.sha256)


def _put_there_by_hand(load: Load, allow_older: bool) -> LoadedBundle | None:
    """Load the configured bundle that a person has replaced; None if it does not load."""
    try:
        stages = load(None, allow_older)
    except BundleError as error:
        _log.error("the new bundle in agent.bundle is not used: %s", error)
        return None
    _log.info("agent.bundle is another one than before: it runs now")
    return stages


def spare(slots: BundleStore) -> None:
    """Record that the agent ended in good order, so that the attempt is not counted."""
    try:
        if slots.read().phase in ("trying", "proving"):
            slots.change(update.spared)
    except UpdateError as error:
        _log.error("%s", error)


def _now() -> str:
    return utc(time.time_ns())
