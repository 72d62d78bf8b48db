"""Numbers, declarations and when they are written, on a real spool, without a thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.clock import Clock
from edge_agent.delivery import losses
from edge_agent.delivery.drafts import Draft
from edge_agent.delivery.inbox import Inbox
from edge_agent.delivery.spool.message import StoredMessage
from edge_agent.delivery.spool.spool import Spool
from edge_agent.delivery.spool_writer import SpoolWriter
from edge_agent.frame import GapReason

NOWHERE = losses.nowhere("root/site/line/agent", "b" * 32)


def draft(frame_id: int, detail: str = "") -> Draft:
    data = msgspec.structs.replace(
        NOWHERE.data, frame_id=frame_id, reason=GapReason.OVERLOAD, detail=detail
    )
    return Draft(data, 0)


def shown(stored: StoredMessage) -> tuple[int, str, int]:
    """Number, reason and frame."""
    data: dict[str, Any] = msgspec.json.decode(stored.message.payload)["data"]
    return data["seq"], data["reason"], data["frame_id"]


class Office:
    def __init__(self, folder: Path) -> None:
        self.now_s = 100.0
        self.spool = Spool(folder / "spool.sqlite3", 1 << 20)
        self.writer = SpoolWriter(
            self.spool, NOWHERE, clock=Clock(monotonic_ns=lambda: round(self.now_s * 1e9))
        )

    def pending(self) -> list[StoredMessage]:
        return list(self.spool.after(0, 100_000))


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.spool.close()


def test_what_the_broker_took_is_written_for_many_at_once(office: Office) -> None:
    office.writer.enter([draft(n) for n in range(600)])
    all_of_it = office.pending()
    assert [shown(one)[0] for one in all_of_it] == list(range(1, 601))
    office.writer.taken(all_of_it[0])
    office.now_s += 0.1
    office.writer.taken(all_of_it[1])
    office.writer.enter([])
    assert len(office.spool) == 600
    assert office.writer.answered == {all_of_it[0].id, all_of_it[1].id}
    office.now_s += 0.11
    office.writer.enter([])
    assert len(office.spool) == 598
    assert office.writer.answered == frozenset()
    for one in all_of_it[2:502]:
        office.writer.taken(one)
    office.writer.enter([])
    assert len(office.spool) == 98, "so many do not wait"


def test_a_message_is_set_aside_in_the_transaction_that_declares_it(office: Office) -> None:
    office.writer.enter([draft(1), draft(2)])
    first, second = office.pending()
    office.writer.put_aside(first, "too large")
    assert office.writer.losses_wait
    changes: list[tuple[int, int]] = []
    write = office.spool.write

    def watched(messages: Any, **how: Any) -> Any:
        changes.append((len(messages), len(how["aside"])))
        return write(messages, **how)

    office.spool.write = watched  # type: ignore[method-assign]
    office.writer.enter([draft(3)])
    assert changes == [(2, 1)]
    assert [shown(one) for one in office.pending()] == [
        (2, "overload", 2),
        (3, "refused", 2),
        (4, "overload", 3),
    ]
    assert (office.spool.aside, office.writer.losses_wait) == (1, False)
    assert office.writer.loss_gaps() == {"refused": 1}
    assert second.id in {one.id for one in office.pending()}


def test_what_found_no_room_is_declared_behind_what_did(office: Office) -> None:
    inbox = Inbox(2)
    assert [inbox.offer(draft(n)) for n in range(5)] == [True, True, False, False, False]
    assert not inbox.is_empty
    new = [mail for mail in inbox.collect(0.0) if isinstance(mail, Draft)]
    assert not inbox.is_empty, "three are to be declared"
    office.writer.enter(new, inbox.take_turned_away())
    assert inbox.is_empty
    assert [shown(one) for one in office.pending()] == [
        (1, "overload", 0),
        (2, "overload", 1),
        (3, "spool_overflow", 2),
    ]
    assert office.writer.dropped == 3


def test_what_gives_way_is_declared_under_the_next_number(office: Office) -> None:
    office.writer.enter([draft(n, "x" * 4000) for n in range(400)])
    numbers = [shown(one)[0] for one in office.pending()]
    declarations = office.writer.loss_gaps()["spool_overflow"]
    assert numbers == list(range(numbers[0], 400 + declarations + 1))
    assert office.writer.dropped == numbers[0] - 1 > 0


def test_at_the_end_whatever_is_in_hand_is_written(office: Office) -> None:
    office.writer.enter([draft(1)])
    (one,) = office.pending()
    office.writer.taken(one)
    office.writer.file_lost("spool.corrupt-1")
    office.writer.close()
    assert [shown(left) for left in office.pending()] == [(2, "spool_loss", 1)]


def test_a_file_found_damaged_at_the_last_moment_is_declared_in_that_run(office: Office) -> None:
    whole = office.spool.tend

    def damaged(declare: Any) -> Any:
        office.spool.set_aside = "spool.sqlite3.damaged-1"
        return whole(declare)

    office.spool.tend = damaged  # type: ignore[method-assign]
    office.writer.enter([draft(7)])
    office.writer.tend()
    office.writer.tend()  # and once is enough
    office.writer.close()
    assert [shown(one) for one in office.pending()] == [(1, "overload", 7), (2, "spool_loss", 7)]
