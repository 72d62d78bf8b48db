"""Each trap of paho-mqtt that cost somebody a message, against a broker that sets it.

Delivery, connection and spool are the real ones; so are the sockets. What paho does wrong is in
the docstrings; what we do instead is the test.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.config import config as configs
from edge_agent.config.config import MqttConfig
from edge_agent.delivery import backoff, broker_link, in_flight, sender
from edge_agent.delivery import delivery as module
from edge_agent.delivery.connection_events import Will
from edge_agent.delivery.delivery import Delivery, Draft
from edge_agent.delivery.inbox import Inbox
from edge_agent.delivery.mqtt_connection import Connection
from edge_agent.delivery.spool.spool import Spool
from edge_agent.errors import ConfigError
from edge_agent.frame import GapReason
from edge_agent.messages.events import GapEvent
from edge_agent.messages.state import StateDocument
from tests.support import packets
from tests.support.scripted_broker import Broker, Visit

BOOT = "b" * 32
BASE = "linegate/site/line/agent"

pytestmark = pytest.mark.faults


def _draft(number: int) -> Draft:
    gap = GapEvent(
        agent="agent",
        site="site",
        line="line",
        coil="",
        boot_id=BOOT,
        seq=0,
        replayed=False,
        frame_id=number,
        first_line=0,
        captured_monotonic_ns=0,
        line_count=256,
        reason=GapReason.OVERLOAD,
        detail="",
    )
    return Draft(gap, 1_700_000_000_000_000_000)


class Rig:
    """A delivery over real connections to a broker of the test's making."""

    def __init__(self, folder: Path, eventually: Callable[..., Any]) -> None:
        self.broker = Broker()
        self.eventually = eventually
        self._path = folder / "spool.sqlite3"
        self._running: list[Delivery] = []

    def delivery(self, window: int = 20) -> Delivery:
        mqtt = msgspec.convert({"broker": self.broker.url, "window": window}, MqttConfig)
        topic = f"{BASE}/state"
        self.inbox = Inbox(1000)
        one = Delivery(
            inbox=self.inbox,
            open_spool=lambda: Spool(self._path, 1 << 20),
            connect=lambda tell, mqtt311, will: Connection(
                mqtt, "agent", Will(topic, will), tell, mqtt311, (topic,)
            ),
            topic_base=BASE,
            state=StateDocument(
                boot_id=BOOT,
                state="online",
                agent_version="0",
                bundle=None,
                inspecting=True,
                update=None,
            ),
            window=window,
        )
        self._running.append(one)
        one.start()
        return one

    def offer(self, delivery: Delivery, count: int) -> None:
        for number in range(count):
            assert delivery.offer(_draft(number))

    def visit(self, number: int) -> Visit:
        self.eventually(lambda: len(self.broker.visits) > number, f"connection {number}")
        return self.broker.visits[number]

    def empty(self, delivery: Delivery) -> None:
        for _ in range(3):  # what was offered is in the spool by then, not between two queues
            before = delivery.progress_s
            self.eventually(lambda b=before: delivery.progress_s != b, "a turn of the loop")
        self.eventually(lambda: not self.spooled(), "an empty spool")

    def spooled(self) -> list[int]:
        try:
            reader = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
            try:
                sql = "SELECT seq FROM outbox WHERE state = 0 ORDER BY id"
                return [row[0] for row in reader.execute(sql)]
            finally:
                reader.close()
        except sqlite3.Error:
            return []

    def close(self) -> None:
        for one in self._running:
            one.stop(0)
            one.join(30)
            assert not one.is_alive()
        self.broker.close()


@pytest.fixture
def rig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> Iterator[Rig]:
    monkeypatch.setattr(module, "_TICK_S", 0.02)
    monkeypatch.setattr(backoff, "_FIRST_S", 0.05)
    made = Rig(tmp_path, eventually)
    yield made
    made.close()


def _silent(visit: Visit, one: packets.Publish) -> None:
    """No acknowledgement."""


def test_after_a_reconnection_the_window_still_holds(rig: Rig) -> None:
    """paho sends all that was in flight or queued again at once, beyond its in-flight limit."""
    rig.broker.answer = _silent
    delivery = rig.delivery(window=3)
    rig.offer(delivery, 40)
    first = rig.visit(0)
    rig.eventually(lambda: len(first.seqs()) == 3, "a full window")
    first.end()
    second = rig.visit(1)
    rig.eventually(lambda: len(second.seqs()) == 3, "a full window again")
    before = delivery.progress_s
    rig.eventually(lambda: delivery.progress_s > before + 0.1, "some turns")
    assert first.seqs() == second.seqs() == [1, 2, 3]
    rig.broker.answer = Visit.acknowledge
    for one in tuple(second.published):
        if one.topic.endswith("/gap"):
            second.acknowledge(one)
    rig.empty(delivery)
    assert second.seqs() == list(range(1, 41))


def test_what_was_in_flight_outlives_the_process(rig: Rig) -> None:
    """paho keeps QoS 1 in memory: with the process goes what was not acknowledged."""
    rig.broker.answer = _silent
    first = rig.delivery()
    rig.offer(first, 5)
    rig.eventually(lambda: len(rig.visit(0).seqs()) == 5, "five on their way")
    first.stop(0)
    first.join(30)
    assert rig.spooled() == [1, 2, 3, 4, 5]
    rig.broker.answer = Visit.acknowledge
    second = rig.delivery()
    rig.empty(second)
    again = rig.broker.visits[-1].numbered()
    assert [(data["seq"], data["replayed"]) for data in again] == [(n, True) for n in range(1, 6)]


def test_a_refusal_is_no_delivery(rig: Rig) -> None:
    """paho: is_published() is true for a PUBACK that refuses. Quota: it is sent again, alone."""
    tries: list[int] = []

    def quota(visit: Visit, one: packets.Publish) -> None:
        tries.append(one.mid)
        visit.acknowledge(one, 0x97 if len(tries) <= 2 else 0)

    rig.broker.answer = quota
    delivery = rig.delivery()
    rig.offer(delivery, 1)
    rig.empty(delivery)
    assert len(tries) == 3
    assert [visit.seqs() for visit in rig.broker.visits] == [[1], [1], [1]]
    assert delivery.counts().messages_refused == 0


@pytest.mark.parametrize("code", [0x87, 0x90, 0x99])
def test_what_is_refused_for_good_is_set_aside_and_declared(rig: Rig, code: int) -> None:
    """It must neither be lost without a word nor hold up what lies behind it."""

    def refuse_the_second(visit: Visit, one: packets.Publish) -> None:
        visit.acknowledge(one, code if b'"seq":2,' in one.payload else 0)

    rig.broker.answer = refuse_the_second
    delivery = rig.delivery()
    rig.offer(delivery, 3)
    rig.eventually(lambda: delivery.counts().messages_refused == 1, "one set aside")
    rig.empty(delivery)
    (visit,) = rig.broker.visits
    (said,) = (data for data in visit.numbered() if data["reason"] == "refused")
    assert said["dropped"]["ranges"] == [{"boot_id": BOOT, "first_seq": 2, "last_seq": 2}]
    assert visit.open, "nothing is wrong with the connection"
    assert any("set aside" in alarm for alarm in delivery.counts().alarms)


def test_the_word_of_a_refusal_is_not_refused_for_good(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that refuses the gap too: it rests, and goes out when it is taken."""
    monkeypatch.setattr(in_flight, "_REST_S", 0.2)
    tries: list[bytes] = []

    def refuse(visit: Visit, one: packets.Publish) -> None:
        said = b'"refused"' in one.payload
        tries.extend([one.payload] * said)
        first = not said and b'"seq":1,' in one.payload
        visit.acknowledge(one, 0x87 if first or (said and len(tries) < 4) else 0)

    rig.broker.answer = refuse
    delivery = rig.delivery()
    rig.offer(delivery, 2)
    rig.eventually(lambda: len(tries) == 4, "the word of the refusal, at last")
    rig.empty(delivery)
    (visit,) = rig.broker.visits
    assert visit.seqs() == [1, 2, 3, 3, 3, 3]
    assert [data["replayed"] for data in visit.numbered()[2:]] == [False, True, True, True]
    assert delivery.counts().messages_refused == 1


def test_nothing_is_handed_to_a_client_that_is_not_connected(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paho: publish() offline returns an error, and the message goes out later all the same."""
    # The first connection must live until all is spooled, however long that takes.
    monkeypatch.setattr(broker_link, "_ANSWER_TIMEOUT_S", 3600.0)
    rig.broker.greet = lambda visit: None  # the handshake hangs
    delivery = rig.delivery()
    rig.offer(delivery, 4)
    first = rig.visit(0)
    rig.eventually(lambda: rig.spooled() == [1, 2, 3, 4], "all spooled")
    first.send(packets.connack(5))
    rig.empty(delivery)
    assert first.seqs() == [1, 2, 3, 4], "once each"


def test_an_acknowledgement_that_never_comes_is_noticed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paho: wait_for_publish(timeout) returns None, whether it arrived or not."""
    monkeypatch.setattr(sender, "_ACK_TIMEOUT_S", 0.3)
    rig.broker.answer = _silent
    delivery = rig.delivery()
    rig.offer(delivery, 1)
    rig.eventually(lambda: not rig.visit(0).open, "the end of a connection that acknowledges not")
    assert rig.spooled() == [1]
    rig.broker.answer = Visit.acknowledge
    rig.empty(delivery)


@pytest.mark.parametrize(
    "nonsense",
    [
        packets.Packet(packets.PUBACK, 0, b"\0\1\x95\0").raw,  # no reason code of a PUBACK
        packets.Packet(packets.PUBACK, 0, b"\0").raw,
        packets.Packet(packets.PUBLISH, 0, b"\0\4a\xff\xffb\0payload").raw,  # topic is not UTF-8
        packets.Packet(packets.SUBACK, 0, b"\0\1\0\x42").raw,
        b"\xf0\xff\xff\xff\xff\xff\xff",
    ],
)
def test_a_packet_that_paho_dies_of_costs_a_connection_and_no_more(
    rig: Rig, nonsense: bytes
) -> None:
    """paho: an exception ends its network thread, and is_connected() stays true for ever."""

    def answer(visit: Visit, one: packets.Publish) -> None:
        if visit.number == 0:
            visit.send(nonsense)
        else:
            visit.acknowledge(one)

    rig.broker.answer = answer
    delivery = rig.delivery()
    rig.offer(delivery, 2)
    rig.visit(1)
    rig.empty(delivery)
    assert rig.broker.visits[1].seqs() == [1, 2]


def test_many_threads_and_many_acknowledgements_do_not_deadlock(rig: Rig) -> None:
    """paho: a lock of one's own around publish() and in on_publish is a deadlock."""
    delivery = rig.delivery(window=50)

    def offer() -> None:
        for number in range(100):
            while not delivery.offer(_draft(number)):
                pass
            rig.inbox.say(f"{BASE}/reply", b"{}")

    threads = [threading.Thread(target=offer) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
        assert not one.is_alive()
    rig.empty(delivery)
    (visit,) = rig.broker.visits
    assert visit.seqs() == list(range(1, 401))


def test_a_broker_that_is_not_there_yet_needs_no_hands(rig: Rig) -> None:
    """paho: the first connect() raises and is not tried again."""
    port = rig.broker.port
    rig.broker.close()
    delivery = rig.delivery()
    rig.offer(delivery, 3)
    rig.eventually(lambda: rig.spooled() == [1, 2, 3], "all spooled")
    rig.broker = Broker(port)
    rig.empty(delivery)
    assert rig.broker.visits[-1].seqs() == [1, 2, 3]


@pytest.mark.parametrize("keepalive_s", [0, 4])
def test_no_connection_without_keep_alive(keepalive_s: int) -> None:
    """paho: with keepalive 0 it ends connections that are well."""
    tree = {
        "agent": {"bundle": "b"},
        "camera": {"kind": "simulated"},
        "mqtt": {"broker": "mqtt://plant", "keepalive_s": keepalive_s},
    }
    with pytest.raises(ConfigError, match="keepalive_s"):
        configs.parse(tree, "line.toml")


def test_a_client_that_took_our_name_is_noticed_and_not_fought(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Two of one client id throw each other out for ever; we say so and wait a long while."""
    delivery = rig.delivery()
    rig.offer(delivery, 1)
    rig.empty(delivery)
    first = rig.visit(0)
    assert first.client_id == "agent"
    first.send(packets.disconnect(0x8E))
    rig.eventually(lambda: not delivery.counts().connected, "the end")
    rig.offer(delivery, 1)
    rig.eventually(lambda: rig.spooled() == [2], "it goes on spooling")
    (alarm,) = delivery.counts().alarms
    assert "another client" in alarm
    assert len(rig.broker.visits) == 1
    (wait,) = re.findall(r"next try in ([\d.]+) s", caplog.text)
    assert float(wait) > 30


def test_a_late_last_will_does_not_leave_us_offline(rig: Rig) -> None:
    """The broker may take the old connection for alive and speak its will after our birth."""
    delivery = rig.delivery()
    visit = rig.visit(0)
    births = lambda: [p for p in tuple(visit.published) if b'"online"' in p.payload]  # noqa: E731
    rig.eventually(births, "the birth document")
    visit.send(packets.publish(5, f"{BASE}/state", b'{"state":"offline"}'))
    rig.eventually(lambda: len(births()) == 2, "the birth document once more")
    visit.send(packets.publish(5, f"{BASE}/state", births()[-1].payload))  # our own: no echo
    rig.offer(delivery, 1)
    rig.empty(delivery)
    assert len(births()) == 2
