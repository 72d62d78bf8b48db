"""Update record and its state machine, as pure functions from one record to the next.

A step acts only after its record is on the disk, so that after a crash at any time the record
names a bundle that can run: idle > staged > trying > proving > idle.
"""

# `active` runs at the next start; None is the bundle of the configuration. It changes in one write
# together with `previous`, the bundle to roll back to.
# staged: the candidate is in the store, whole and verified. The old bundle runs.
# trying: the candidate is tried beside the old bundle, which runs. Each trial is counted before it
#   begins; a candidate is refused after `limit` trials that ended without a result.
# proving: the candidate is `active`, on probation. Each start is counted before it begins; after
#   `limit` starts that ended without a result, `previous` is active again.
# confirmed: only now the candidate counts as the version that ran.
# An orderly stop is not a crash: its trial or start is not counted.
# A candidate that a person rolled back to has no trial: it ran here before.
# A step that does not fit the record's phase raises StaleRecord and changes nothing.

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge_agent.bundle.manifest import MAX_VERSION, BundleName, Sha256
from edge_agent.errors import EdgeError
from edge_agent.messages.state import TrialReport

ATTEMPTS = 3
"""Permitted crashes in trials or starts: a power cut may cause one, not three."""

Phase = Literal["idle", "staged", "trying", "proving"]
Result = Literal["committed", "refused", "rolled_back", "cancelled"]
_Report = TrialReport | None
_Count = Annotated[int, msgspec.Meta(ge=0)]


class UpdateError(EdgeError):
    """Error that the person who stages, cancels or rolls back must act on."""


class StaleRecord(UpdateError):
    """Error for a step on a record that has changed in the meantime."""


class _RecordPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the record's parts: frozen, and an unknown key is an error."""


class BundleSlot(_RecordPart, frozen=True, kw_only=True):
    """Bundle in the store; `forced`: a person permitted an older version."""

    sha256: Sha256
    name: BundleName
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
    forced: bool = False

    def __str__(self) -> str:
        return f"{self.name} version {self.version} ({self.sha256[:12]})"


class UpdateResult(_RecordPart, frozen=True, kw_only=True):
    """Result of the last update; `reason` is one line of text, "" if committed."""

    result: Result
    bundle: BundleSlot
    reason: str = ""
    time: str = ""
    report: _Report = None


class UpdateRecord(_RecordPart, frozen=True, kw_only=True):
    """Record of an update: its phase, and the active, previous and candidate bundles.

    `configured_sha256` is the hash of the configured bundle when `active` replaced it. A different
    hash there means that a person has put another bundle in its place since.
    """

    schema_version: Literal[1] = 1
    phase: Phase = "idle"
    active: BundleSlot | None = None
    previous: BundleSlot | None = None
    candidate: BundleSlot | None = None
    trial: bool = True
    attempts: _Count = 0
    configured_sha256: str = ""
    report: _Report = None
    last: UpdateResult | None = None

    def __post_init__(self) -> None:
        # A record that breaks these rules was not written by this program.
        if (self.candidate is None) != (self.phase == "idle"):
            raise ValueError(f"{self.phase}, but the candidate is {self.candidate}")
        if self.phase == "proving" and (self.active != self.candidate or self.previous is None):
            raise ValueError("proving, but nothing to go back to")

    @property
    def kept(self) -> frozenset[str]:
        """Return the sha256 of each bundle in the store that is still needed."""
        return frozenset(s.sha256 for s in (self.active, self.previous, self.candidate) if s)


def staged(record: UpdateRecord, slot: BundleSlot) -> UpdateRecord:
    """Return the record with a new candidate, which replaces one that is not tried yet.

    Raises UpdateError if an update is in progress, or the bundle runs already.
    """
    if record.phase not in ("idle", "staged"):
        raise UpdateError(
            f"update: {record.candidate} is under way ({record.phase}); wait for its end, or give "
            "it up with edge-agent update rollback"
        )
    if record.active and record.active.sha256 == slot.sha256:
        raise UpdateError(f"update: {slot} is what runs; stage another bundle")
    return _replace(record, phase="staged", candidate=slot, trial=True, attempts=0, report=None)


def begun(record: UpdateRecord, slot: BundleSlot, limit: int, time: str) -> UpdateRecord:
    """Return the record with one more trial counted, or idle if the limit is reached."""
    _expect(record, slot, "staged", "trying")
    if record.attempts >= limit:
        reason = f"the agent ended {record.attempts} times while it was tried"
        return _idle(record, "refused", reason, time)
    return _replace(record, phase="trying", attempts=record.attempts + 1)


def switched(
    record: UpdateRecord,
    slot: BundleSlot,
    running: BundleSlot,
    configured_sha256: str,
    report: _Report = None,
) -> UpdateRecord:
    """Return the record with the candidate in place of `running`, its first start counted."""
    _expect(record, slot, "trying" if record.trial else "staged")
    return _replace(
        record,
        phase="proving",
        active=slot,
        previous=running,
        attempts=1,
        configured_sha256=configured_sha256,
        report=report,
    )


def started(record: UpdateRecord, limit: int, time: str) -> UpdateRecord:
    """Return the record for a start: one start counted, or rolled back at the limit."""
    if record.phase != "proving":
        return record
    if record.attempts >= limit:
        return _idle(record, "rolled_back", f"the agent crashed {record.attempts} times", time)
    return _replace(record, attempts=record.attempts + 1)


def spared(record: UpdateRecord) -> UpdateRecord:
    """Return the record after an orderly stop, with the attempts not counted."""
    if record.phase == "trying":
        return _replace(record, phase="staged", attempts=0)
    return _replace(record, attempts=0) if record.phase == "proving" else record


def confirmed(record: UpdateRecord, slot: BundleSlot, time: str) -> UpdateRecord:
    """Return the record with the candidate committed; raise StaleRecord if it is not proving."""
    _expect(record, slot, "proving")
    return _idle(record, "committed", "", time)


def failed(
    record: UpdateRecord, slot: BundleSlot, reason: str, time: str, report: _Report
) -> UpdateRecord:
    """Return the record with the candidate refused, or rolled back if it was active."""
    _expect(record, slot, "staged", "trying", "proving")
    result: Result = "rolled_back" if record.phase == "proving" else "refused"
    return _idle(_replace(record, report=report or record.report), result, reason, time)


def returned(record: UpdateRecord, time: str) -> UpdateRecord:
    """Return the record after a rollback by hand.

    An update in progress is cancelled or rolled back; if there is none, the previous bundle becomes
    the candidate. Raises UpdateError if no previous bundle is kept.
    """
    if record.phase == "proving":
        return _idle(record, "rolled_back", "by hand", time)
    if record.phase in ("staged", "trying"):
        return _idle(record, "cancelled", "by hand", time)
    if record.previous is None:
        raise UpdateError("update: no bundle before this one is kept; stage the one you want")
    slot = msgspec.structs.replace(record.previous, forced=True)
    return _replace(record, phase="staged", candidate=slot, trial=False, attempts=0, report=None)


def lost(record: UpdateRecord, reason: str, time: str) -> UpdateRecord:
    """Return the record after `active` failed to load; the previous bundle takes its place."""
    if record.phase == "proving":
        return _idle(record, "rolled_back", reason, time)
    # The version history holds the later version; this bundle ran before it, so it may run again.
    before = record.previous and msgspec.structs.replace(record.previous, forced=True)
    return _replace(record, active=before, previous=None)


def configured(record: UpdateRecord, before: BundleSlot | None) -> UpdateRecord:
    """Return the record after a person replaced the configured bundle by one that loads."""
    in_flight = record.phase != "proving"
    return _replace(
        record,
        active=None,
        previous=before,
        configured_sha256="",
        phase=record.phase if in_flight else "idle",
        candidate=record.candidate if in_flight else None,
        attempts=record.attempts if in_flight else 0,
    )


def _idle(record: UpdateRecord, result: Result, reason: str, time: str) -> UpdateRecord:
    """Return the record at the end of an update; a rollback makes `previous` active."""
    if record.candidate is None:  # UpdateRecord checks it: only idle has none
        raise StaleRecord("update: there is no candidate")
    outcome = UpdateResult(
        result=result, bundle=record.candidate, reason=reason, time=time, report=record.report
    )
    back = result == "rolled_back"
    return _replace(
        record,
        phase="idle",
        active=record.previous if back else record.active,
        previous=None if back else record.previous,
        candidate=None,
        trial=True,
        attempts=0,
        report=None,
        last=outcome,
    )


def _expect(record: UpdateRecord, slot: BundleSlot, *phases: Phase) -> None:
    """Raise StaleRecord unless `slot` is the candidate in one of the phases."""
    if record.phase not in phases or record.candidate != slot:
        raise StaleRecord(f"update: {slot} is not the candidate any more ({record.phase})")


def _replace(record: UpdateRecord, **changes: object) -> UpdateRecord:
    return msgspec.structs.replace(record, **changes)
