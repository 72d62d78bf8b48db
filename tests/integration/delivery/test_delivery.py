"""Delivery over a scripted link and a real spool.

The broker's side is scripted on purpose: only so can it refuse a publish, hold back
acknowledgements or vanish at a chosen moment. What goes over a real broker is in test_publish
and test_agent.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.delivery import backoff, broker_link, encoding, sender
from edge_agent.delivery import delivery as module
from edge_agent.delivery.connection_events import (
    Acknowledged,
    Connected,
    Incoming,
    Lost,
    Note,
    TcpConnected,
)
from edge_agent.delivery.delivery import Delivery, Draft
from edge_agent.delivery.inbox import Inbox
from edge_agent.delivery.spool.message import Message
from edge_agent.delivery.spool.spool import Spool
from edge_agent.errors import BrokerError
from edge_agent.frame import GapReason
from edge_agent.messages.events import (
    BoxPx,
    BundleRef,
    Defect,
    DefectEvent,
    GapEvent,
    GateScore,
    MaskRle,
)
from edge_agent.messages.state import StateDocument

BOOT = "b" * 32
STATE = StateDocument(
    boot_id=BOOT, state="online", agent_version="0", bundle=None, inspecting=True, update=None
)
BIRTH = msgspec.json.encode(STATE)
DEATH = msgspec.json.encode(msgspec.structs.replace(STATE, state="offline", inspecting=False))


@dataclass(frozen=True, slots=True)
class Sent:
    mid: int
    topic: str
    payload: bytes
    retain: bool
    correlation_data: bytes | None = None

    @property
    def kind(self) -> str:
        return self.topic.rpartition("/")[2]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.payload)["data"]


class ScriptedLink:
    """One connection. Message ids begin at 1 again with each, as paho's do."""

    def __init__(
        self, broker: ScriptedBroker, tell: Callable[[Note], None], mqtt311: bool, will: bytes
    ) -> None:
        self.tell, self.mqtt311, self.will = tell, mqtt311, will
        self.sent: list[Sent] = []
        self.closed = False
        self._broker = broker

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation_data: bytes | None = None,
    ) -> int | None:
        assert not self.closed
        if self._broker.full:
            return None
        one = Sent(len(self.sent) + 1, topic, payload, retain, correlation_data)
        self.sent.append(one)
        self._broker.answer(self, one)
        return one.mid

    def close(self, flush_s: float = 0.0) -> None:
        assert not self.closed
        self.closed = True

    def stale(self) -> bool:
        return False

    def acknowledge(self, one: Sent, refused: str | None = None) -> None:
        self.tell(Acknowledged(one.mid, refused))

    def numbered(self) -> list[Sent]:
        return [one for one in self.sent if one.kind in ("event", "gap")]


class ScriptedBroker:
    """Accepts and acknowledges everything unless a test changes `greet`, `answer` or `full`."""

    def __init__(self) -> None:
        self.links: list[ScriptedLink] = []
        self.tries = 0
        self.full = False
        self.greet: Callable[[ScriptedLink], None] = lambda link: link.tell(Connected())
        self.answer: Callable[[ScriptedLink, Sent], None] = ScriptedLink.acknowledge

    def connect(self, tell: Callable[[Note], None], mqtt311: bool, will: bytes) -> ScriptedLink:
        self.tries += 1
        link = ScriptedLink(self, tell, mqtt311, will)
        self.greet(link)
        self.links.append(link)
        return link

    def numbered(self) -> list[Sent]:
        return [one for link in tuple(self.links) for one in link.numbered()]


def unreachable(_: ScriptedLink) -> None:
    raise BrokerError("nobody there")


def only_state(link: ScriptedLink, one: Sent) -> None:
    """Acknowledge the birth document, hold back the rest."""
    if one.kind == "state":
        link.acknowledge(one)


def seqs(sent: list[Sent]) -> list[int]:
    return [one.data["seq"] for one in sent]


def draft(number: int) -> Draft:
    return Draft(
        DefectEvent(
            agent="agent",
            site="site",
            line="line",
            coil="",
            boot_id=BOOT,
            seq=0,
            replayed=False,
            frame_id=number,
            first_line=256 * number,
            captured_monotonic_ns=number,
            line_count=256,
            encoder_count=None,
            source="",
            gate=GateScore(score_logit=1.0, threshold_logit=0.0, probability=0.7),
            bundle=BundleRef(name="tiny", version=1, sha256="0" * 64, gate="g", segmenter="s"),
            latency_ms={"gate": 1.0},
            defects=(
                Defect(
                    id=f"d{number}",
                    class_name="pit",
                    class_id=1,
                    confidence=0.9,
                    box_px=BoxPx(x=0, y=0, width=2, height=1),
                    area_px=2,
                    area_mm2=None,
                    across_mm=None,
                    along_m=None,
                    mask=MaskRle(lines=256, pixels=800, runs="1 1 257 1"),
                ),
            ),
        ),
        1_700_000_000_000_000_000 + number,
    )


def gap_draft(number: int) -> Draft:
    data = GapEvent(
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
    return Draft(data, 0)


class Rig:
    """Deliveries on one spool file, one after the other, and the broker they talk to."""

    def __init__(self, folder: Path, eventually: Callable[..., Any]) -> None:
        self.path = folder / "spool.sqlite3"
        self.broker = ScriptedBroker()
        self.eventually = eventually
        self._started: list[Delivery] = []

    def delivery(
        self,
        *,
        window: int = 20,
        max_drafts: int = 1000,
        max_bytes: int = 1 << 20,
        open_spool: Callable[[], Spool] | None = None,
        on_incoming: Callable[[Incoming], None] = lambda _: None,
    ) -> Delivery:
        self.inbox = Inbox(max_drafts)
        one = Delivery(
            inbox=self.inbox,
            open_spool=open_spool or (lambda: Spool(self.path, max_bytes)),
            connect=self.broker.connect,
            topic_base="linegate/site/line/agent",
            state=STATE,
            window=window,
            on_incoming=on_incoming,
        )
        self._started.append(one)
        one.start()
        return one

    def link(self, number: int) -> ScriptedLink:
        """The connection with this number, from 0, once it is there."""
        self.eventually(lambda: len(self.broker.links) > number, f"connection {number}")
        return self.broker.links[number]

    def sent(self, link: ScriptedLink, count: int) -> list[Sent]:
        self.eventually(lambda: len(link.numbered()) >= count, f"{count} messages over a link")
        return link.numbered()

    def turns(self, delivery: Delivery) -> None:
        """Let the delivery's loop come round a few times: what it meant to do is then done."""
        for _ in range(3):
            before = delivery.progress_s
            self.eventually(lambda b=before: delivery.progress_s != b, "a turn of the loop")

    def spooled(self) -> list[int]:
        """The seq of every message on the disk, seen by another process' eyes."""
        reader = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            rows = reader.execute(
                "SELECT payload FROM outbox WHERE state = 0 ORDER BY id"
            ).fetchall()
        finally:
            reader.close()
        return [json.loads(payload)["data"]["seq"] for (payload,) in rows]

    def empty(self, delivery: Delivery) -> None:
        self.turns(delivery)  # what was offered is in the spool by then, not between two queues
        self.eventually(lambda: delivery.counts().messages_pending == 0, "an empty spool")

    def end(self, delivery: Delivery, drain_s: float = 30.0) -> None:
        delivery.stop(drain_s)
        delivery.join(30)
        assert not delivery.is_alive(), "delivery does not end"

    def close(self) -> None:
        for one in self._started:
            if one.is_alive():
                self.end(one, 0.0)


@pytest.fixture
def rig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> Iterator[Rig]:
    monkeypatch.setattr(module, "_TICK_S", 0.02)
    made = Rig(tmp_path, eventually)
    yield made
    made.close()


def test_a_connection_begins_with_the_birth_document_and_ends_with_offline(rig: Rig) -> None:
    delivery = rig.delivery()
    delivery.offer(draft(1))
    rig.empty(delivery)
    rig.end(delivery)
    (link,) = rig.broker.links
    assert [(one.topic, one.retain) for one in link.sent] == [
        ("linegate/site/line/agent/state", True),
        ("linegate/site/line/agent/event", False),
        ("linegate/site/line/agent/state", True),
    ]
    assert (link.sent[0].payload, link.sent[-1].payload) == (BIRTH, DEATH)
    assert link.closed


def test_messages_go_out_numbered_in_the_order_they_were_offered(
    rig: Rig, check_schema: Callable[[str, Any], None]
) -> None:
    delivery = rig.delivery()
    for number in range(50):
        delivery.offer(gap_draft(number) if number % 7 == 0 else draft(number))
    rig.empty(delivery)
    sent = rig.broker.numbered()
    assert seqs(sent) == list(range(1, 51))
    assert [one.data["frame_id"] for one in sent] == list(range(50))
    assert [one.kind for one in sent] == ["gap" if n % 7 == 0 else "event" for n in range(50)]
    for one in sent:
        check_schema(one.kind, json.loads(one.payload))
    counts = delivery.counts()
    assert (counts.events_spooled, counts.events_published) == (42, 42)
    assert (counts.messages_dropped, counts.loss_gaps) == (0, {})


def test_no_more_than_the_window_is_unacknowledged(rig: Rig) -> None:
    rig.broker.answer = only_state
    delivery = rig.delivery(window=3)
    for number in range(10):
        delivery.offer(draft(number))
    link = rig.link(0)
    rig.sent(link, 3)
    rig.turns(delivery)
    assert seqs(link.numbered()) == [1, 2, 3]
    link.acknowledge(link.numbered()[1])
    rig.sent(link, 4)
    rig.turns(delivery)
    assert seqs(link.numbered()) == [1, 2, 3, 4]


def test_a_message_is_deleted_after_its_acknowledgement_and_not_before(rig: Rig) -> None:
    rig.broker.answer = only_state
    delivery = rig.delivery()
    for number in range(4):
        delivery.offer(draft(number))
    link = rig.link(0)
    sent = rig.sent(link, 4)
    rig.turns(delivery)
    assert rig.spooled() == [1, 2, 3, 4]
    assert delivery.counts().events_published == 0
    link.acknowledge(sent[2])
    rig.eventually(lambda: rig.spooled() == [1, 2, 4], "one message deleted")
    assert delivery.counts().events_published == 1
    for one in (sent[0], sent[1], sent[3]):
        link.acknowledge(one)
    rig.eventually(lambda: rig.spooled() == [], "all messages deleted")


def test_a_refused_publish_is_kept_and_sent_again(rig: Rig) -> None:
    def refuse_the_second(link: ScriptedLink, one: Sent) -> None:
        first = rig.broker.links[0]
        if link is first and one.kind == "event" and one.data["seq"] == 2:
            link.acknowledge(one, "Quota exceeded")
        else:
            link.acknowledge(one)

    rig.broker.answer = refuse_the_second
    delivery = rig.delivery(window=2)
    for number in range(4):
        delivery.offer(draft(number))
    second = rig.link(1)
    rig.empty(delivery)
    assert rig.broker.links[0].closed
    sent = second.numbered()
    assert seqs(sent)[:1] == [2], "what was acknowledged before the refusal is not sent again"
    assert seqs(sent) == [2, 3, 4]
    assert sent[0].data["replayed"] is True
    assert delivery.counts().events_published == 4


@pytest.mark.faults
def test_acknowledgements_that_do_not_come_end_the_connection(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_ACK_TIMEOUT_S", 0.2)
    rig.broker.answer = only_state
    delivery = rig.delivery()
    delivery.offer(draft(0))
    first = rig.link(0)
    rig.sent(first, 1)
    rig.eventually(lambda: first.closed, "the end of a connection that acknowledges nothing")
    assert rig.spooled() == [1]
    rig.broker.answer = ScriptedLink.acknowledge
    rig.empty(delivery)
    assert seqs(rig.broker.links[-1].numbered()) == [1]


@pytest.mark.faults
def test_after_a_lost_connection_all_unacknowledged_go_out_again_in_order(rig: Rig) -> None:
    rig.broker.answer = only_state
    delivery = rig.delivery()
    rig.eventually(lambda: delivery.counts().connected, "a connection")
    for number in range(5):
        delivery.offer(draft(number))
    first = rig.link(0)
    sent = rig.sent(first, 5)
    assert [one.data["replayed"] for one in sent] == [False] * 5
    first.acknowledge(sent[1])
    rig.eventually(lambda: rig.spooled() == [1, 3, 4, 5], "one message deleted")
    rig.broker.answer = ScriptedLink.acknowledge
    first.tell(Lost("keep-alive ran out"))
    second = rig.link(1)
    rig.empty(delivery)
    delivery.offer(draft(5))
    rig.sent(second, 5)
    assert first.closed
    assert [(one.data["seq"], one.data["replayed"]) for one in second.numbered()] == [
        (1, True),
        (3, True),
        (4, True),
        (5, True),
        (6, False),
    ]
    # The same message in all but the mark: a subscriber drops it by (agent, boot_id, seq).
    again = {one.data["seq"]: one for one in second.numbered()}
    for one in (sent[0], *sent[2:]):
        assert one.data | {"replayed": True} == again[one.data["seq"]].data
        assert json.loads(one.payload)["id"] == json.loads(again[one.data["seq"]].payload)["id"]
    assert second.sent[0].payload == BIRTH


@pytest.mark.faults
def test_late_notes_of_an_old_connection_are_ignored(rig: Rig) -> None:
    rig.broker.answer = only_state
    delivery = rig.delivery()
    for number in range(3):
        delivery.offer(draft(number))
    first = rig.link(0)
    rig.sent(first, 3)
    first.tell(Lost("gone"))
    second = rig.link(1)
    sent = rig.sent(second, 3)
    # Both count their messages from 1, so these ids mean something to the second one too.
    for mid in range(1, 10):
        first.tell(Acknowledged(mid, None))
    first.tell(Acknowledged(sent[0].mid, "refused late"))
    first.tell(Lost("gone again"))
    rig.turns(delivery)
    assert rig.spooled() == [1, 2, 3]
    assert not second.closed
    assert delivery.counts().connected


@pytest.mark.faults
def test_a_connection_that_takes_no_more_is_replaced(rig: Rig) -> None:
    rig.broker.answer = only_state
    delivery = rig.delivery()
    first = rig.link(0)
    rig.eventually(lambda: first.sent, "the birth document")
    rig.broker.full = True
    delivery.offer(draft(0))
    rig.eventually(lambda: first.closed, "the end of a connection that takes no more")
    rig.broker.full = False
    rig.broker.answer = ScriptedLink.acknowledge
    rig.empty(delivery)
    assert seqs(rig.broker.numbered()) == [1]


def test_a_broker_without_mqtt_5_is_asked_again_in_3_1_1(rig: Rig) -> None:
    def old(link: ScriptedLink) -> None:
        link.tell(Connected() if link.mqtt311 else Lost("refused: Unsupported protocol", True))

    rig.broker.greet = old
    delivery = rig.delivery()
    delivery.offer(draft(0))
    rig.empty(delivery)
    assert [link.mqtt311 for link in rig.broker.links] == [False, True]


@pytest.mark.faults
@pytest.mark.parametrize("answers_to_311", [True, False])
def test_a_broker_that_leaves_connect_unanswered_is_asked_in_the_other_version(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, answers_to_311: bool
) -> None:
    """amqtt, for one, never answers MQTT 5; a frozen broker answers nothing for a while."""
    monkeypatch.setattr(broker_link, "_ANSWER_TIMEOUT_S", 0.1)

    def greet(link: ScriptedLink) -> None:
        link.tell(TcpConnected())
        if link.mqtt311 == answers_to_311 and rig.broker.tries > 1:
            link.tell(Connected())

    rig.broker.greet = greet
    delivery = rig.delivery()
    delivery.offer(draft(0))
    rig.empty(delivery)
    assert [link.mqtt311 for link in rig.broker.links] == (
        [False, True] if answers_to_311 else [False, True, False]
    )
    assert all(link.closed for link in rig.broker.links[:-1])
    assert seqs(rig.broker.numbered()) == [1]
    rig.turns(delivery)
    assert not rig.broker.links[-1].closed


@pytest.mark.faults
def test_silence_of_a_broker_that_spoke_mqtt_5_does_not_make_it_3_1_1(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is half-open for a while. In 3.1.1 there would be no reason codes from then on."""
    monkeypatch.setattr(broker_link, "_ANSWER_TIMEOUT_S", 0.05)

    def greet(link: ScriptedLink) -> None:
        link.tell(TcpConnected())
        if rig.broker.tries in (1, 4):
            link.tell(Connected())

    rig.broker.greet = greet
    delivery = rig.delivery()
    rig.eventually(lambda: delivery.counts().connected, "a connection")
    rig.link(0).tell(Lost("cut"))
    rig.link(3)
    assert [link.mqtt311 for link in rig.broker.links] == [False] * 4


def test_a_state_document_is_said_at_once_and_at_each_connection_and_is_the_will(rig: Rig) -> None:
    rig.delivery()
    first = rig.link(0)
    rig.eventually(lambda: first.sent, "the birth document")
    changed = msgspec.structs.replace(STATE, agent_version="1")
    rig.inbox.set_state(changed)
    rig.eventually(lambda: len(first.sent) == 2, "the new document")
    assert (first.sent[1].payload, first.sent[1].retain) == (msgspec.json.encode(changed), True)
    first.tell(Lost("cut"))
    second = rig.link(1)
    rig.eventually(lambda: second.sent, "the document again")
    assert second.sent[0].payload == msgspec.json.encode(changed)
    assert first.will == DEATH
    gone = msgspec.structs.replace(changed, state="offline", bundle=None, inspecting=False)
    assert second.will == msgspec.json.encode(gone)


def test_what_comes_in_is_handed_on_and_answered_but_not_what_is_retained(rig: Rig) -> None:
    heard: list[Incoming] = []
    rig.delivery(on_incoming=heard.append)
    link = rig.link(0)
    command = Incoming("linegate/site/line/agent/command/x", b"{}", "who/asks", b"7")
    link.tell(dataclasses.replace(command, retained=True))
    link.tell(command)
    rig.eventually(lambda: heard, "the command")
    assert heard == [command], "a retained command would be done at each connection anew"
    rig.inbox.say("who/asks", b"done", correlation_data=b"7")
    rig.eventually(lambda: len(link.sent) == 2, "the reply")
    reply = link.sent[1]
    assert (reply.topic, reply.payload, reply.retain) == ("who/asks", b"done", False)
    assert reply.correlation_data == b"7"
    assert rig.spooled() == []


def test_drafts_that_find_the_inbox_full_are_declared_in_a_gap(
    rig: Rig, check_schema: Callable[[str, Any], None]
) -> None:
    disk_awake = threading.Event()

    def slow_disk() -> Spool:
        assert disk_awake.wait(30)
        return Spool(rig.path, 1 << 20)

    delivery = rig.delivery(max_drafts=3, open_spool=slow_disk)
    assert [delivery.offer(draft(number)) for number in range(5)] == [True] * 3 + [False] * 2
    disk_awake.set()
    rig.eventually(lambda: delivery.counts().events_published == 3, "the three with room")
    rig.empty(delivery)
    sent = rig.broker.numbered()
    assert seqs(sent) == [1, 2, 3, 4]
    assert [one.kind for one in sent] == ["event"] * 3 + ["gap"]
    gap = sent[3].data
    check_schema("gap", json.loads(sent[3].payload))
    assert (gap["reason"], gap["frame_id"]) == ("spool_overflow", 3)
    assert gap["detail"].startswith("2 messages dropped")
    assert gap["dropped"] == {"messages": 2, "pictures": 0, "ranges": []}
    counts = delivery.counts()
    assert (counts.messages_dropped, counts.events_spooled) == (2, 3)
    assert counts.loss_gaps == {"spool_overflow": 1}


@pytest.mark.parametrize("at_once", [True, False])
def test_what_a_full_spool_drops_is_the_oldest_and_is_declared(
    rig: Rig, at_once: bool, check_schema: Callable[[str, Any], None]
) -> None:
    rig.broker.greet = unreachable
    delivery = rig.delivery(max_bytes=131_072)  # a message is about 900 bytes
    offered = 300
    for number in range(offered):
        delivery.offer(draft(number))
        if not at_once and number % 10 == 9:
            rig.eventually(
                lambda n=number: delivery.counts().events_spooled == n + 1, "messages spooled"
            )
    rig.eventually(lambda: delivery.counts().events_spooled == offered, "all messages spooled")
    rig.turns(delivery)
    counts = delivery.counts()
    kept = rig.spooled()
    declarations = counts.loss_gaps["spool_overflow"]
    assert counts.messages_dropped > 100
    # Every number that was given is on the disk or counted as dropped, and what went was oldest.
    last = offered + declarations
    assert len(kept) + counts.messages_dropped == last
    assert sorted(kept) == list(range(last - len(kept) + 1, last + 1))
    rig.broker.greet = lambda link: link.tell(Connected())
    rig.empty(delivery)
    sent = rig.broker.numbered()
    assert seqs(sent) == kept == sorted(kept)
    gaps = [one for one in sent if one.kind == "gap"]
    declared: set[int] = set()
    for gap in gaps:
        check_schema("gap", json.loads(gap.payload))
        assert gap.data["reason"] == "spool_overflow"
        assert "the spool is full" in gap.data["detail"]
        for one in gap.data["dropped"]["ranges"]:
            assert one["boot_id"] == BOOT
            declared |= set(range(one["first_seq"], one["last_seq"] + 1))
    assert declared == set(range(1, last + 1)) - set(kept), "what is not there, and nothing else"


def test_stop_drains(rig: Rig) -> None:
    delivery = rig.delivery(window=4)
    for number in range(60):
        delivery.offer(draft(number))
    rig.end(delivery)
    assert seqs(rig.broker.numbered()) == list(range(1, 61))
    assert rig.spooled() == []
    assert rig.broker.links[-1].sent[-1].payload == DEATH
    counts = delivery.counts()
    assert (counts.messages_pending, counts.events_published) == (0, 60)
    assert not counts.connected


@pytest.mark.faults
@pytest.mark.parametrize(
    "greet",
    [
        pytest.param(unreachable, id="cannot-connect"),
        pytest.param(lambda link: link.tell(Lost("connection refused")), id="refused"),
        pytest.param(lambda link: None, id="no-answer"),
    ],
)
def test_stop_without_a_broker_leaves_the_messages_to_the_next_run(
    rig: Rig, greet: Callable[[ScriptedLink], None]
) -> None:
    rig.broker.greet = greet
    delivery = rig.delivery()
    for number in range(5):
        delivery.offer(draft(number))
    rig.end(delivery, drain_s=0.1)
    assert rig.spooled() == [1, 2, 3, 4, 5]
    assert rig.broker.numbered() == []
    assert delivery.counts().messages_pending == 5

    rig.broker.greet = lambda link: link.tell(Connected())
    second = rig.delivery()
    rig.eventually(lambda: len(rig.broker.numbered()) == 5, "what the first run left")
    rig.end(second)
    sent = rig.broker.numbered()
    assert [(one.data["seq"], one.data["replayed"]) for one in sent] == [
        (number, True) for number in range(1, 6)
    ]
    assert rig.spooled() == []


@pytest.mark.faults
def test_stop_gives_up_when_the_next_try_lies_beyond_the_drain(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can arrive any more, so waiting out the drain would be for nothing."""
    monkeypatch.setattr(backoff.random, "uniform", lambda *_: 10_000.0)
    rig.broker.greet = unreachable
    delivery = rig.delivery()
    rig.eventually(lambda: rig.broker.tries, "the first try")
    delivery.offer(draft(0))
    rig.end(delivery, drain_s=1_000.0)
    assert rig.spooled() == [1]
    assert rig.broker.tries == 1


@pytest.mark.faults
def test_stop_with_a_broker_that_acknowledges_nothing_ends_with_the_drain(rig: Rig) -> None:
    rig.broker.answer = lambda link, one: None
    delivery = rig.delivery()
    delivery.offer(draft(0))
    rig.sent(rig.link(0), 1)
    rig.end(delivery, drain_s=0.1)
    assert rig.spooled() == [1]
    assert rig.broker.links[0].closed


def test_of_the_health_documents_only_the_latest_goes_out(rig: Rig) -> None:
    rig.broker.greet = unreachable
    delivery = rig.delivery()
    for number in range(5):
        rig.inbox.set_health(b'{"n": %d}' % number)
    rig.eventually(lambda: rig.broker.tries, "a try to connect")
    rig.broker.greet = lambda link: link.tell(Connected())
    link = rig.link(0)
    rig.eventually(lambda: [one for one in link.sent if one.kind == "health"], "health")
    rig.turns(delivery)
    health = [one for one in link.sent if one.kind == "health"]
    assert [(one.topic, one.payload, one.retain) for one in health] == [
        ("linegate/site/line/agent/health", b'{"n": 4}', True)
    ]
    # Retained documents are no events: they are not spooled and not counted.
    assert rig.spooled() == []
    assert delivery.counts().events_published == 0


def test_the_last_health_document_is_sent_before_the_end(rig: Rig) -> None:
    delivery = rig.delivery()
    rig.eventually(lambda: delivery.counts().connected, "a connection")
    rig.inbox.set_health(b'{"last": true}')
    rig.end(delivery)
    assert [one.kind for one in rig.link(0).sent] == ["state", "health", "state"]


@pytest.mark.faults
def test_a_disk_that_fills_in_the_middle_loses_nothing_of_this_run(rig: Rig) -> None:
    """From then on the spool is in memory; ids of the old file must mean nothing in it."""

    def small_disk() -> Spool:
        spool = Spool(rig.path, 1 << 20)
        db = spool._disk._db
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 4}")  # SQLite's own "disk full"
        return spool

    rig.broker.answer = only_state
    delivery = rig.delivery(open_spool=small_disk)
    offered = 0
    for number in itertools.count():
        delivery.offer(draft(number))
        offered = number + 1
        rig.eventually(lambda n=offered: delivery.counts().events_spooled == n, "a message spooled")
        if delivery.counts().spool == "memory":
            break
        assert number < 200, "the disk does not fill"
    for number in range(offered, offered + 5):
        delivery.offer(draft(number))
    rig.eventually(
        lambda: delivery.counts().events_spooled == offered + 5, "the last messages spooled"
    )
    link = rig.link(0)
    rig.broker.answer = ScriptedLink.acknowledge
    for one in link.numbered():
        link.acknowledge(one)
    rig.empty(delivery)
    assert seqs(link.numbered()) == list(range(1, offered + 6))


@pytest.mark.faults
def test_the_spool_of_another_life_goes_first(rig: Rig) -> None:
    """What an earlier boot left is older than anything of this one."""
    earlier = Spool(rig.path, 1 << 20)
    payload = json.dumps({"data": {"boot_id": "a" * 32, "seq": 77, "replayed": False}}).encode()
    earlier.write([Message("event", "a" * 32, payload)], declare=lambda gone, before: gone[0])
    earlier.close()
    rig.broker.greet = unreachable
    delivery = rig.delivery()
    delivery.offer(draft(0))
    rig.eventually(lambda: delivery.counts().events_spooled == 1, "a message spooled")
    rig.broker.greet = lambda link: link.tell(Connected())
    rig.empty(delivery)
    sent = rig.broker.numbered()
    assert [(one.data["boot_id"], one.data["seq"]) for one in sent] == [("a" * 32, 77), (BOOT, 1)]


@pytest.mark.parametrize("payload", [b"", b"\xff\x00", b"[1]", b"3", b'{"data": 1}', b"{}"])
def test_a_payload_damaged_on_the_disk_does_not_end_the_delivery(payload: bytes) -> None:
    assert encoding.replayed(payload) == payload


# Pictures.


def test_an_event_is_not_lost_with_its_picture(rig: Rig) -> None:
    def broken() -> bytes:
        raise RuntimeError("no encoder")

    delivery = rig.delivery()
    pictures = [broken, lambda: b"jpeg", lambda: bytes(1 << 20)]  # the last finds no room
    for number, picture in enumerate(pictures, start=1):
        delivery.offer(dataclasses.replace(draft(number), picture=picture))
    rig.sent(rig.link(0), 3)
    rig.end(delivery)
    events = rig.link(0).numbered()
    assert [one.data["frame_id"] for one in events] == [1, 2, 3]
    assert [one.data["evidence"] for one in events] == ["", f"{BOOT}-2", ""]
    pictured = [one for one in rig.link(0).sent if "/evidence/" in one.topic]
    assert [(one.topic.rpartition("/")[2], one.payload) for one in pictured] == [
        (f"{BOOT}-2", b"jpeg")
    ]
