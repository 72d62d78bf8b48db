"""The rules of an update, tried in every order: at each moment there is a bundle to run."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.update import record as update
from edge_agent.update.record import BundleSlot, StaleRecord, UpdateError, UpdateRecord

NOW = "2026-11-25T00:00:00.000000Z"
LIMIT = 3


def slot(number: int, **keys: bool) -> BundleSlot:
    return BundleSlot(sha256=f"{number:064x}", name="tiny", version=number, **keys)


OLD, NEW = slot(1), slot(2)


def proving() -> UpdateRecord:
    record = update.begun(update.staged(UpdateRecord(), NEW), NEW, LIMIT, NOW)
    return update.switched(record, NEW, OLD, "c" * 64)


def test_the_way_of_an_update_that_goes_well() -> None:
    record = update.staged(UpdateRecord(), NEW)
    assert (record.phase, record.active, record.candidate) == ("staged", None, NEW)
    record = update.begun(record, NEW, LIMIT, NOW)
    assert (record.phase, record.active, record.attempts) == ("trying", None, 1)
    record = update.switched(record, NEW, OLD, "c" * 64)
    assert (record.phase, record.active, record.previous) == ("proving", NEW, OLD)
    record = update.confirmed(record, NEW, NOW)
    assert (record.phase, record.active, record.previous) == ("idle", NEW, OLD)
    assert record.last is not None
    assert record.last.result == "committed"
    assert record.kept == {NEW.sha256, OLD.sha256}


def test_what_crashes_the_agent_is_given_up_after_so_many_starts() -> None:
    record = proving()
    for start in range(2, LIMIT + 1):
        record = update.started(record, LIMIT, NOW)
        assert (record.active, record.attempts) == (NEW, start)
    record = update.started(record, LIMIT, NOW)
    assert (record.phase, record.active, record.previous) == ("idle", OLD, None)
    assert record.last is not None
    assert (record.last.result, record.last.reason) == ("rolled_back", "the agent crashed 3 times")
    assert record.kept == {OLD.sha256}


def test_what_crashes_the_agent_in_its_trial_is_given_up_too() -> None:
    record = update.staged(UpdateRecord(), NEW)
    for attempt in range(1, LIMIT + 1):
        record = update.begun(record, NEW, LIMIT, NOW)
        assert (record.phase, record.attempts) == ("trying", attempt)
    record = update.begun(record, NEW, LIMIT, NOW)
    assert (record.phase, record.active) == ("idle", None)
    assert record.last is not None
    assert record.last.result == "refused"


def test_who_stops_in_good_order_has_not_crashed() -> None:
    record = proving()
    for _ in range(10 * LIMIT):
        record = update.spared(update.started(record, LIMIT, NOW))
    assert (record.phase, record.active) == ("proving", NEW)
    trying = update.begun(update.staged(UpdateRecord(), NEW), NEW, LIMIT, NOW)
    assert update.spared(trying) == update.staged(UpdateRecord(), NEW)


def test_the_way_back_by_hand() -> None:
    committed = update.confirmed(proving(), NEW, NOW)
    back = update.returned(committed, NOW)
    # Older than what ran, and a person said so.
    assert (back.phase, back.trial, back.active) == ("staged", False, NEW)
    assert back.candidate == slot(1, forced=True)
    record = update.switched(back, slot(1, forced=True), NEW, "")
    assert (record.active, record.previous) == (slot(1, forced=True), NEW)
    # While something is under way it is given up, whatever it is.
    assert update.returned(proving(), NOW).active == OLD
    staged = update.returned(update.staged(committed, slot(3)), NOW)
    assert (staged.phase, staged.active) == ("idle", NEW)
    assert staged.last is not None
    assert staged.last.result == "cancelled"
    with pytest.raises(UpdateError, match="no bundle before this one"):
        update.returned(UpdateRecord(), NOW)


def test_a_bundle_that_cannot_be_loaded_gives_way_to_the_one_before() -> None:
    record = update.lost(proving(), "damaged", NOW)
    assert (record.phase, record.active) == ("idle", OLD)
    committed = update.confirmed(proving(), NEW, NOW)
    # The later version ran and is remembered, so this one must be let in as older.
    assert update.lost(committed, "damaged", NOW).active == slot(1, forced=True)
    twice = update.lost(update.lost(committed, "damaged", NOW), "damaged", NOW)
    assert (twice.active, twice.phase) == (None, "idle")


def test_a_step_for_a_candidate_that_is_none_any_more_changes_nothing() -> None:
    other = slot(9)
    trying = update.begun(update.staged(UpdateRecord(), NEW), NEW, LIMIT, NOW)
    for step in (
        lambda r: update.begun(r, other, LIMIT, NOW),
        lambda r: update.switched(r, other, OLD, ""),
        lambda r: update.confirmed(r, NEW, NOW),
        lambda r: update.failed(r, other, "slow", NOW, None),
    ):
        with pytest.raises(StaleRecord):
            step(trying)
    with pytest.raises(UpdateError, match="is under way"):
        update.staged(trying, other)
    with pytest.raises(UpdateError, match="is what runs"):
        update.staged(update.confirmed(proving(), NEW, NOW), NEW)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"phase": "trying"}',
        b'{"phase": "proving", "active": null, "candidate": null}',
        msgspec.json.encode({"phase": "proving", "candidate": NEW, "active": OLD, "previous": OLD}),
        msgspec.json.encode({"phase": "proving", "candidate": NEW, "active": NEW}),
        msgspec.json.encode({"phase": "idle", "candidate": NEW}),
        b'{"active": {"sha256": "../../etc", "name": "x", "version": 1}}',
        b'{"schema_version": 2}',
        b'{"extra": 1}',
    ],
)
def test_a_record_that_breaks_the_rules_is_none(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=UpdateRecord)


class AnyOrder(RuleBasedStateMachine):
    """All steps in any order, crashes included; `good` are bundles that have run to satisfaction,
    of which the configuration's (None) is one."""

    def __init__(self) -> None:
        super().__init__()
        self.record, self.number, self.crashes = UpdateRecord(), 1, 0
        self.good: set[str | None] = {None}

    def apply(self, step: object, *arguments: object) -> None:
        try:
            self.record = step(self.record, *arguments)  # type: ignore[operator]
        except UpdateError:
            return
        self.record = msgspec.json.decode(msgspec.json.encode(self.record), type=UpdateRecord)

    @rule()
    def stage(self) -> None:
        self.number += 1
        self.apply(update.staged, slot(self.number))

    @rule()
    def begin(self) -> None:
        if self.record.candidate:
            self.apply(update.begun, self.record.candidate, LIMIT, NOW)

    @rule()
    def switch(self) -> None:
        if self.record.candidate:
            running = self.record.active or slot(1)
            self.good.add(running.sha256)
            self.apply(update.switched, self.record.candidate, running, "")

    @rule()
    def confirm(self) -> None:
        if self.record.candidate and self.record.phase == "proving":
            self.good.add(self.record.candidate.sha256)
            self.apply(update.confirmed, self.record.candidate, NOW)

    @rule()
    def fail(self) -> None:
        if self.record.candidate:
            self.apply(update.failed, self.record.candidate, "slow", NOW, None)

    @rule()
    def by_hand(self) -> None:
        self.apply(update.returned, NOW)

    @rule()
    def stop(self) -> None:
        self.apply(update.spared)

    @rule()
    def damage(self) -> None:
        self.apply(update.lost, "damaged", NOW)

    @precondition(lambda self: self.record.phase == "proving")
    @rule(starts=st.integers(LIMIT + 1, 2 * LIMIT))
    def crash_loop(self, starts: int) -> None:
        for _ in range(starts):
            self.apply(update.started, LIMIT, NOW)
        assert self.record.phase == "idle", "it must not crash for ever"

    @invariant()
    def what_runs_is_good_or_is_proving_with_a_good_one_behind_it(self) -> None:
        record = self.record
        active = record.active.sha256 if record.active else None
        if record.phase == "proving":
            assert record.previous is not None
            assert record.previous.sha256 in self.good
        else:
            assert active in self.good
        if record.active:
            assert record.active.sha256 in record.kept


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase
