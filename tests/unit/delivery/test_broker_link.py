"""One connection after the other, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_agent.clock import Clock
from edge_agent.delivery import backoff
from edge_agent.delivery.broker_link import BrokerLink
from edge_agent.delivery.connection_events import Connected, Lost, Note
from edge_agent.errors import BrokerError


class Link:
    def __init__(self, tell: Callable[[Note], None], mqtt311: bool, will: bytes) -> None:
        self.tell, self.mqtt311, self.will, self.closed = tell, mqtt311, will, False

    def publish(self, topic: str, payload: bytes, **_: object) -> int | None:
        return 1

    def close(self, flush_s: float = 0.0) -> None:
        self.closed = True

    def stale(self) -> bool:
        return False


class Plant:
    """An broker link, and all the connections it made."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.links: list[Link] = []
        self.heard: list[tuple[int, Note]] = []
        self.there = True
        self.link = BrokerLink(
            self._connect,
            name="root/agent",
            tell=lambda number, note: self.heard.append((number, note)),
            will=lambda: b"will %d" % len(self.links),
            mqtt311=False,
            clock=Clock(monotonic_ns=lambda: round(self.now_s * 1e9)),
        )

    def _connect(self, tell: Callable[[Note], None], mqtt311: bool, will: bytes) -> Link:
        if not self.there:
            raise BrokerError("nobody there")
        self.links.append(Link(tell, mqtt311, will))
        return self.links[-1]

    def keep(self, later_s: float = 0.0) -> None:
        self.now_s += later_s
        self.link.keep(may_connect=True)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    monkeypatch.setattr(backoff.random, "uniform", lambda *_: 1.0)
    return Plant()


def test_a_connection_is_made_once_and_replaced_when_it_is_lost(plant: Plant) -> None:
    plant.link.keep(may_connect=False)
    assert not plant.link.is_open
    plant.keep()
    plant.keep(1.0)
    assert len(plant.links) == 1
    assert (plant.link.is_open, plant.link.online) == (True, False)
    plant.link.accepted(Connected(max_packet_bytes=100))
    assert plant.link.online
    assert plant.link.max_packet_bytes == 100
    assert plant.link.publish("t", b"") == 1
    plant.link.lose("cut")
    assert plant.links[0].closed
    assert (plant.link.is_open, plant.link.online) == (False, False)
    assert plant.link.publish("t", b"") is None
    plant.keep(0.4)
    assert len(plant.links) == 1, "not yet"
    plant.keep(0.2)
    assert [link.will for link in plant.links] == [b"will 0", b"will 1"]


def test_each_connection_speaks_under_its_own_number(plant: Plant) -> None:
    plant.keep()
    plant.link.lose("cut", at_once=True)
    plant.keep()
    for link in plant.links:
        link.tell(Lost("late"))
    (old, _), (new, _) = plant.heard
    assert old != new == plant.link.number


def test_a_host_that_is_not_there_is_tried_less_and_less_often(plant: Plant) -> None:
    plant.there = False
    waits = []
    for _ in range(4):
        plant.keep()
        waits.append(plant.link.retry_at_s - plant.now_s)
        plant.now_s = plant.link.retry_at_s
    assert waits == pytest.approx([0.5, 1.0, 2.0, 4.0])


def test_no_answer_means_the_other_version_only_where_none_was_ever_spoken(plant: Plant) -> None:
    for expected in (False, True, False):
        plant.keep()
        assert plant.links[-1].mqtt311 is expected
        plant.link.reached()
        plant.keep(2.9)
        assert plant.link.is_open
        plant.keep(0.2)
        assert not plant.link.is_open
        plant.now_s = plant.link.retry_at_s
    plant.keep()
    spoken = plant.links[-1].mqtt311
    plant.link.accepted(Connected())
    plant.link.lose("cut")
    for _ in range(3):
        plant.now_s = plant.link.retry_at_s
        plant.keep()
        assert plant.links[-1].mqtt311 is spoken
        plant.keep(20.0)  # not even reached


def test_a_broker_that_wants_3_1_1_gets_it_once(plant: Plant) -> None:
    assert not plant.link.falls_back(Lost("cut"))
    wants = Lost("unsupported protocol version", wants_mqtt311=True)
    assert plant.link.falls_back(wants)
    assert not plant.link.falls_back(wants)
    plant.keep()
    assert plant.links[0].mqtt311


def test_another_of_our_name_is_an_alarm_until_a_connection_has_held(plant: Plant) -> None:
    plant.keep()
    plant.link.accepted(Connected())
    plant.link.lose("session taken over", code=0x8E)
    assert "another client connects as root/agent" in plant.link.alarm
    assert plant.link.retry_at_s - plant.now_s == pytest.approx(60.0)
    plant.keep(60.0)
    plant.link.accepted(Connected())
    plant.keep(19.0)
    assert plant.link.alarm
    plant.keep(2.0)
    assert not plant.link.alarm
