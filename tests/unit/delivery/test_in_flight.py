"""The window, the order and the meaning of answers; no thread, no connection, no clock."""

from __future__ import annotations

import json

import pytest

from edge_agent.delivery import in_flight as module
from edge_agent.delivery.connection_events import Acknowledged, Connected, Lost
from edge_agent.delivery.in_flight import Accepted, Deferred, InFlight, Rejected
from edge_agent.delivery.spool.message import Message, StoredMessage

NOTHING: frozenset[int] = frozenset()
REFUSED = "Not authorised"


def stored(spool_id: int, kind: str = "event", reason: str = "") -> StoredMessage:
    data = {
        "agent": "a",
        "site": "s",
        "line": "l",
        "coil": "",
        "boot_id": "b" * 32,
        "seq": spool_id,
        "frame_id": 0,
        "first_line": 0,
        "captured_monotonic_ns": 0,
        "reason": reason,
        "replayed": False,
    }
    return StoredMessage(
        spool_id, Message(kind, "b" * 32, json.dumps({"data": data}).encode(), spool_id)
    )


class Desk:
    """What is under way, and a spool that is a list."""

    def __init__(self, count: int, window: int = 3) -> None:
        self.spool = [stored(n) for n in range(1, count + 1)]
        self.in_flight = InFlight(window, self.after)
        self.in_flight.connected(Connected(), last_id=0)

    def after(self, spool_id: int, limit: int) -> list[StoredMessage]:
        return [one for one in self.spool if one.id > spool_id][:limit]

    def send(self, now_s: float = 0.0, settled: frozenset[int] = NOTHING) -> list[int]:
        """The ids that went out; the message id is the same."""
        due = self.in_flight.due(settled, now_s)
        for one in due:
            self.in_flight.begin(one)
            self.in_flight.sent(one.id, one.message.kind, now_s, one)
        return [one.id for one in due]

    def taken(self, spool_id: int) -> None:
        answer = self.in_flight.answered(Acknowledged(spool_id, None), 0.0)
        assert answer == Accepted(self.spool[0])
        del self.spool[0]


def test_no_more_than_the_window_is_in_flight() -> None:
    desk = Desk(10)
    assert desk.send() == [1, 2, 3]
    assert desk.send() == []
    desk.taken(1)
    assert desk.send() == [4]
    desk.in_flight.connected(Connected(receive_maximum=2), last_id=10)
    desk.in_flight.forget()
    assert desk.send() == [2, 3], "the broker takes less"


def test_what_is_not_spooled_takes_room_too() -> None:
    desk = Desk(10)
    desk.in_flight.sent(77, "state", 0.0)
    assert desk.send() == [1, 2]
    assert desk.in_flight.answered(Acknowledged(77, REFUSED, 0x87), 0.0) is None
    assert desk.send() == [3]


def test_after_a_lost_connection_it_begins_with_the_oldest_and_marks_what_it_may_have_sent() -> (
    None
):
    desk = Desk(4)
    desk.send()
    desk.in_flight.forget()
    desk.in_flight.connected(Connected(), last_id=4)
    desk.spool.append(stored(5))
    assert desk.in_flight.answered(Acknowledged(1, None), 0.0) is None, "of another connection"
    assert desk.send(settled=frozenset([2])) == [1, 3, 4]
    marks = [json.loads(desk.in_flight.begin(one))["data"]["replayed"] for one in desk.spool]
    assert marks == [True] * 4 + [False]


def test_the_oldest_without_an_answer_is_what_we_wait_for() -> None:
    desk = Desk(3, window=2)
    assert desk.in_flight.waiting_s(5.0) == 0.0
    desk.send(now_s=1.0)
    desk.taken(1)
    desk.send(now_s=4.0)
    assert desk.in_flight.waiting_s(5.0) == 4.0


def test_an_answer_is_taken_never_or_later() -> None:
    desk = Desk(3)
    desk.send()
    first, second, _ = desk.spool
    assert desk.in_flight.answered(Acknowledged(1, None), 0.0) == Accepted(first)
    never = desk.in_flight.answered(Acknowledged(2, REFUSED, 0x87), 0.0)
    assert never == Rejected(second, f"the broker says: {REFUSED}")
    later = desk.in_flight.answered(Acknowledged(3, "Quota exceeded", 0x97), 0.0)
    assert later == Deferred("publish refused: Quota exceeded")
    assert len(desk.in_flight) == 0


def test_a_refused_declaration_of_refusals_rests_and_is_tried_again() -> None:
    desk = Desk(0, window=10)
    desk.spool = [stored(1, "gap", "refused"), stored(2)]
    assert desk.send() == [1, 2]
    assert desk.in_flight.answered(Acknowledged(1, REFUSED, 0x87), 100.0) is None
    desk.in_flight.answered(Acknowledged(2, None), 100.0)
    assert desk.in_flight.resting == 1
    assert desk.send(100.0, frozenset([2])) == []
    assert desk.send(131.0, frozenset([2])) == [1]
    assert json.loads(desk.in_flight.begin(desk.spool[0]))["data"]["replayed"] is True
    assert desk.in_flight.answered(Acknowledged(1, None), 131.0) == Accepted(desk.spool[0])
    assert desk.in_flight.resting == 0


def test_what_gave_way_while_it_rested_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(0)
    desk.spool = [stored(1, "gap", "refused")]
    desk.send()
    desk.in_flight.answered(Acknowledged(1, REFUSED, 0x87), 0.0)
    desk.spool = [stored(2)]
    assert desk.send(60.0) == [2]
    assert desk.in_flight.resting == 0
    monkeypatch.setattr(module, "_MAX_RESTING", 0)
    desk.spool = [stored(3, "gap", "refused")]
    desk.in_flight.answered(Acknowledged(2, None), 60.0)
    assert desk.send(60.0) == [3]
    assert isinstance(desk.in_flight.answered(Acknowledged(3, REFUSED, 0x87), 60.0), Rejected)


def test_a_message_that_ends_connections_is_sent_alone_and_then_never() -> None:
    desk = Desk(3)
    sizes, never = [], None
    while never is None:
        sizes.append(len(desk.send()))
        never = desk.in_flight.ended(Lost("Packet too large", code=0x95))
        desk.in_flight.forget()
        desk.in_flight.connected(Connected(), last_id=3)
    assert sizes == [3, 3, 1]
    assert never == Rejected(desk.spool[0], "it ends: Packet too large")
