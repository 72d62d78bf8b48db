"""Where an update stands: a pure state machine over one small record.

Each function takes the record as it is and gives the record to be written; nothing is acted on
before it is on the disk. So whatever dies, and whenever, the record names a bundle that can run:

- `active` is what runs at the next start; None is the bundle of the configuration. It changes in
  one write, together with `previous`, to which it can go back.
- *idle* ─staged─▶ *staged* ─begun─▶ *trying* ─switched─▶ *proving* ─confirmed─▶ *idle*
- staged: the candidate lies in the store, whole and signed. The old bundle runs.
- trying: it is tried beside the old one, which runs. Each try is counted before it begins; when
  the last of `limit` tries ended without a word, the candidate is given up.
- proving: the candidate is `active`, but not trusted yet. Each start is counted before it begins;
  after the last of `limit` that ended without a word, `previous` is active again.
- confirmed: the candidate is the bundle that runs, and only now counts as the version that ran.
- Who stops in good order has not crashed: his try or start is taken back.
- A candidate that was `returned` to by hand has no trial: it ran here before.
- A step that does not fit where the record stands raises Stale and changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge_agent.bundle.manifest import MAX_VERSION, BundleName, Sha256
from edge_agent.errors import EdgeError
from edge_agent.messages.state import TrialReport

ATTEMPTS = 3
"""Trials, or starts, that may end in a crash: one may be the power's fault, three are not."""

Phase = Literal["idle", "staged", "trying", "proving"]
Result = Literal["committed", "refused", "rolled_back", "cancelled"]
_Report = TrialReport | None
_Count = Annotated[int, msgspec.Meta(ge=0)]


class UpdateError(EdgeError):
    """The person who stages, cancels or rolls back must act."""


class StaleRecord(UpdateError):
    """The record has moved on under the one who wanted to change it."""


class _RecordPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class BundleSlot(_RecordPart, frozen=True, kw_only=True):
    """A bundle in the store. `forced`: a person said that it may run though it is older."""

    sha256: Sha256
    name: BundleName
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
    forced: bool = False

    def __str__(self) -> str:
        return f"{self.name} version {self.version} ({self.sha256[:12]})"


class UpdateResult(_RecordPart, frozen=True, kw_only=True):
    """How the last update ended. `reason` is one line for people, "" when it was committed."""

    result: Result
    bundle: BundleSlot
    reason: str = ""
    time: str = ""
    report: _Report = None


class UpdateRecord(_RecordPart, frozen=True, kw_only=True):
    """`configured_sha256`: of the configuration's bundle when `active` took its place; when
    another lies there, a person has put it there since."""

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
        # A record that holds this in no way was not written by us.
        if (self.candidate is None) != (self.phase == "idle"):
            raise ValueError(f"{self.phase}, but the candidate is {self.candidate}")
        if self.phase == "proving" and (self.active != self.candidate or self.previous is None):
            raise ValueError("proving, but nothing to go back to")

    @property
    def kept(self) -> frozenset[str]:
        """The sha256 of each bundle in the store that is still needed."""
        return frozenset(s.sha256 for s in (self.active, self.previous, self.candidate) if s)


def staged(record: UpdateRecord, slot: BundleSlot) -> UpdateRecord:
    """A new candidate; one that nobody has begun to try gives way to it."""
    if record.phase not in ("idle", "staged"):
        raise UpdateError(
            f"update: {record.candidate} is under way ({record.phase}); wait for its end, or give "
            "it up with edge-agent update rollback"
        )
    if record.active and record.active.sha256 == slot.sha256:
        raise UpdateError(f"update: {slot} is what runs; stage another bundle")
    return _replace(record, phase="staged", candidate=slot, trial=True, attempts=0, report=None)


def begun(record: UpdateRecord, slot: BundleSlot, limit: int, time: str) -> UpdateRecord:
    """A try is to begin; or it was one too many, then phase is idle."""
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
    """The candidate takes the place of `running`. It has had its first start."""
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
    """The agent is to start with `active`; where that crashed it too often, with the one before."""
    if record.phase != "proving":
        return record
    if record.attempts >= limit:
        return _idle(record, "rolled_back", f"the agent crashed {record.attempts} times", time)
    return _replace(record, attempts=record.attempts + 1)


def spared(record: UpdateRecord) -> UpdateRecord:
    """The agent ended, and not through the candidate."""
    if record.phase == "trying":
        return _replace(record, phase="staged", attempts=0)
    return _replace(record, attempts=0) if record.phase == "proving" else record


def confirmed(record: UpdateRecord, slot: BundleSlot, time: str) -> UpdateRecord:
    _expect(record, slot, "proving")
    return _idle(record, "committed", "", time)


def failed(
    record: UpdateRecord, slot: BundleSlot, reason: str, time: str, report: _Report
) -> UpdateRecord:
    """The candidate is given up; where it was active, the one before is again."""
    _expect(record, slot, "staged", "trying", "proving")
    result: Result = "rolled_back" if record.phase == "proving" else "refused"
    return _idle(_replace(record, report=report or record.report), result, reason, time)


def returned(record: UpdateRecord, time: str) -> UpdateRecord:
    """By hand: what is under way is given up; else the bundle before the active one comes back."""
    if record.phase == "proving":
        return _idle(record, "rolled_back", "by hand", time)
    if record.phase in ("staged", "trying"):
        return _idle(record, "cancelled", "by hand", time)
    if record.previous is None:
        raise UpdateError("update: no bundle before this one is kept; stage the one you want")
    slot = msgspec.structs.replace(record.previous, forced=True)
    return _replace(record, phase="staged", candidate=slot, trial=False, attempts=0, report=None)


def lost(record: UpdateRecord, reason: str, time: str) -> UpdateRecord:
    """`active` cannot be loaded any more: the one before it counts, at last the configuration's."""
    if record.phase == "proving":
        return _idle(record, "rolled_back", reason, time)
    # The memory of versions knows the later one; this one ran before it, so it may run again.
    before = record.previous and msgspec.structs.replace(record.previous, forced=True)
    return _replace(record, active=before, previous=None)


def configured(record: UpdateRecord, before: BundleSlot | None) -> UpdateRecord:
    """A person has put another bundle where the configuration points, and it can run: it counts."""
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
    """The end of an update; what was rolled back is not active any more."""
    if record.candidate is None:  # held by Record: there is none in idle only
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
    if record.phase not in phases or record.candidate != slot:
        raise StaleRecord(f"update: {slot} is not the candidate any more ({record.phase})")


def _replace(record: UpdateRecord, **changes: object) -> UpdateRecord:
    return msgspec.structs.replace(record, **changes)
