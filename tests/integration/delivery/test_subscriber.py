"""The subscriber's end: lines for people, and a real broker that carries all sorts of things."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt import publish as paho_publish

from edge_agent.config.config import MqttConfig
from edge_agent.delivery.subscriber import ReceivedMessage, decode, line, listen
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
    envelope,
)

CAPTURED_NS = 1_767_225_784_123_456_000  # 2026-01-01T00:03:04.123456Z
TOPIC = "linegate/site/line/agent"
LAST_FRAME = 999_999


def defect(**changes: Any) -> Defect:
    return msgspec.structs.replace(
        Defect(
            id="d",
            class_name="scratch",
            class_id=2,
            confidence=0.934,
            box_px=BoxPx(x=480, y=12, width=24, height=30),
            area_px=560,
            area_mm2=35.0,
            across_mm=123.0,
            along_m=14.617,
            mask=MaskRle(lines=256, pixels=1600, runs="1 560"),
        ),
        **changes,
    )


def event(**changes: Any) -> DefectEvent:
    return msgspec.structs.replace(
        DefectEvent(
            agent="agent",
            site="site",
            line="line",
            coil="",
            boot_id="b" * 32,
            seq=1,
            replayed=False,
            frame_id=57,
            first_line=14592,
            captured_monotonic_ns=1,
            line_count=256,
            encoder_count=None,
            source="",
            gate=GateScore(score_logit=1.0, threshold_logit=0.0, probability=0.7),
            bundle=BundleRef(name="tiny", version=1, sha256="0" * 64, gate="g", segmenter="s"),
            latency_ms={},
            defects=(defect(),),
        ),
        **changes,
    )


def gap(**changes: Any) -> GapEvent:
    return msgspec.structs.replace(
        GapEvent(
            agent="agent",
            site="site",
            line="line",
            coil="",
            boot_id="b" * 32,
            seq=2,
            replayed=False,
            frame_id=58,
            first_line=14848,
            captured_monotonic_ns=1,
            line_count=256,
            reason=GapReason.OVERLOAD,
            detail="8 frames were waiting",
        ),
        **changes,
    )


def encoded(data: DefectEvent | GapEvent) -> bytes:
    return msgspec.json.encode(envelope(data, CAPTURED_NS))


# line.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            event(),
            "00:03:04.123 agent frame 57: scratch 0.93 at 123 mm across, 14.62 m along, 35 mm²",
            id="millimetres",
        ),
        pytest.param(
            event(replayed=True, defects=(defect(class_name="pit", confidence=1.0),)),
            "00:03:04.123 agent frame 57 (replayed): "
            "pit 1.00 at 123 mm across, 14.62 m along, 35 mm²",
            id="replayed",
        ),
        pytest.param(
            event(defects=(defect(across_mm=None, along_m=None, area_mm2=None),)),
            "00:03:04.123 agent frame 57: scratch 0.93 at x 480 px, y 12 px, 560 px",
            id="pixels",
        ),
        pytest.param(
            event(defects=(defect(across_mm=None), defect(class_name="pit"))),
            "00:03:04.123 agent frame 57: scratch 0.93 at x 480 px, y 12 px, 560 px; "
            "pit 0.93 at 123 mm across, 14.62 m along, 35 mm²",
            id="two",
        ),
        pytest.param(
            event(defects=tuple(defect(class_name=f"c{n}", across_mm=None) for n in range(5))),
            "00:03:04.123 agent frame 57: c0 0.93 at x 480 px, y 12 px, 560 px; "
            "c1 0.93 at x 480 px, y 12 px, 560 px; c2 0.93 at x 480 px, y 12 px, 560 px; "
            "and 2 smaller",
            id="many",
        ),
        pytest.param(
            gap(),
            "00:03:04.123 agent frame 58: NOT INSPECTED (overload): 8 frames were waiting",
            id="gap",
        ),
    ],
)
def test_line(data: DefectEvent | GapEvent, expected: str) -> None:
    assert line(envelope(data, CAPTURED_NS)) == expected


# decode.


def test_decode_gives_back_what_was_sent() -> None:
    assert decode(f"{TOPIC}/event", encoded(event())) == envelope(event(), CAPTURED_NS)
    assert decode(f"{TOPIC}/gap", encoded(gap())) == envelope(gap(), CAPTURED_NS)


def without(payload: bytes, key: str) -> bytes:
    tree = msgspec.json.decode(payload)
    del tree["data"][key]
    return msgspec.json.encode(tree)


FOREIGN = {
    "empty": b"",
    "text": b"hello",
    "list": b"[]",
    "null": b"null",
    "other-json": b'{"temperature": 21}',
    "half": encoded(event())[:-40],
    "no-seq": without(encoded(event()), "seq"),
    "negative-seq": encoded(event()).replace(b'"seq":1', b'"seq":-1'),
    "other-version": encoded(event()).replace(b'"schema_version":1', b'"schema_version":2'),
    "no-defects": encoded(event(defects=())),
    "not-utf-8": encoded(event(coil="C1")).replace(b'"C1"', b'"\xff"'),
    "a-gap": encoded(gap()),
    "deep": b'{"x":' + b"[" * 100_000,
}


@pytest.mark.parametrize("payload", FOREIGN.values(), ids=FOREIGN)
def test_decode_refuses_what_is_no_event(payload: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError, RecursionError)):
        decode(f"{TOPIC}/event", payload)


def test_decode_refuses_an_event_on_the_topic_of_gaps() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(f"{TOPIC}/gap", encoded(event()))


def test_decode_refuses_what_is_too_large_before_it_reads_it() -> None:
    with pytest.raises(ValueError, match=r"16777217 bytes, more than 16777216"):
        decode(f"{TOPIC}/event", b" " * ((16 << 20) + 1))


# listen.


class Listener(threading.Thread):
    """`listen` in a thread until it hears of frame LAST_FRAME."""

    def __init__(self, config: MqttConfig) -> None:
        super().__init__(daemon=True)
        self.heard: queue.SimpleQueue[ReceivedMessage | str] = queue.SimpleQueue()
        self.subscribed = threading.Semaphore(0)
        self._config = config

    def run(self) -> None:
        for one in listen(self._config, self.subscribed.release):
            if isinstance(one, ReceivedMessage) and one.event.data.frame_id == LAST_FRAME:
                return
            self.heard.put(one)

    def next(self) -> ReceivedMessage | str:
        return self.heard.get(timeout=30)

    def end(self) -> None:
        config = self._config
        publish(
            config.broker,
            encoded(gap(frame_id=LAST_FRAME, boot_id="end")),
            "gap",
            f"{config.root}/site/line/agent",
            username=config.username,
        )
        self.join(30)
        assert not self.is_alive()


@pytest.fixture
def listener(mqtt_config: Callable[..., MqttConfig]) -> Iterator[Callable[..., Listener]]:
    started: list[Listener] = []

    def start(url: str, *, wait: bool = True, **keys: Any) -> Listener:
        one = Listener(mqtt_config(url, **keys))
        started.append(one)
        one.start()
        if wait:
            assert one.subscribed.acquire(timeout=30)
        return one

    yield start
    for one in started:
        one.end()


def publish(
    url: str, payload: bytes, kind: str = "event", topic: str = TOPIC, username: str = ""
) -> None:
    paho_publish.single(
        f"{topic}/{kind}",
        payload,
        qos=1,
        port=int(url.rpartition(":")[2]),
        hostname="127.0.0.1",
        auth={"username": username, "password": "open sesame"} if username else None,
    )


@pytest.mark.system
def test_listen_drops_what_it_has_heard_before(
    mosquitto: Any, listener: Callable[..., Listener]
) -> None:
    url = mosquitto.url
    one = listener(url)
    sent = [
        (event(seq=5), "event"),
        (event(seq=5, replayed=True), "event"),  # again
        (gap(seq=6), "gap"),
        (gap(seq=6, replayed=True), "gap"),  # again
        (event(seq=4), "event"),  # late, but new
        (event(seq=5, boot_id="c" * 32), "event"),  # the agent was started anew
        (event(seq=5, agent="other"), "event"),
    ]
    for data, kind in sent:
        publish(url, encoded(data), kind)
    for index in (0, 2, 4, 5, 6):
        data, kind = sent[index]
        expected = ReceivedMessage(f"{TOPIC}/{kind}", encoded(data), envelope(data, CAPTURED_NS))
        assert one.next() == expected
    publish(url, encoded(event(seq=7)))
    heard = one.next()
    assert isinstance(heard, ReceivedMessage)
    assert heard.event.data.seq == 7


@pytest.mark.system
def test_listen_hears_events_and_gaps_below_its_root_and_nothing_else(
    mosquitto: Any, listener: Callable[..., Listener]
) -> None:
    one = listener(mosquitto.url, root="plant")
    for topic, kind in (
        (TOPIC, "event"),
        ("plant/site/line/agent", "state"),
        ("plant/site/line/agent", "health"),
        ("plant/site/line", "event"),
        ("plant/site/line/agent/deeper", "event"),
    ):
        publish(mosquitto.url, encoded(event(seq=1)), kind, topic)
    publish(mosquitto.url, encoded(event(seq=2)), "event", "plant/other/place/camera2")
    heard = one.next()
    assert isinstance(heard, ReceivedMessage)
    assert (heard.topic, heard.event.data.seq) == ("plant/other/place/camera2/event", 2)


@pytest.mark.system
@pytest.mark.faults
def test_listen_names_what_is_not_ours_and_goes_on(
    mosquitto: Any, listener: Callable[..., Listener]
) -> None:
    one = listener(mosquitto.url)
    for payload in FOREIGN.values():
        publish(mosquitto.url, payload)
        said = one.next()
        assert isinstance(said, str)
        assert said.startswith(f"{TOPIC}/event: ")
    publish(mosquitto.url, encoded(event()))
    assert isinstance(one.next(), ReceivedMessage)


@pytest.mark.system
@pytest.mark.faults
def test_listen_subscribes_again_after_the_broker_was_gone(
    mosquitto: Any, listener: Callable[..., Listener]
) -> None:
    mosquitto.stop()
    one = listener(mosquitto.url, wait=False)
    mosquitto.start()
    for seq in (1, 2):
        assert one.subscribed.acquire(timeout=30)
        publish(mosquitto.url, encoded(event(seq=seq)))
        heard = one.next()
        assert isinstance(heard, ReceivedMessage)
        assert heard.event.data.seq == seq
        if seq == 1:
            mosquitto.kill()
            mosquitto.start()


@pytest.mark.parametrize("key", ["password_file", "ca_file"])
def test_listen_says_which_file_cannot_be_read(
    mqtt_config: Callable[..., MqttConfig], key: str
) -> None:
    config = mqtt_config("mqtts://127.0.0.1:1", username="line", **{key: "missing/file"})
    with pytest.raises(BrokerError, match=r"--password-file, --ca-file, .*: .*No such file"):
        next(listen(config, lambda: None))


@pytest.mark.system
def test_listen_comes_in_with_a_password(
    tmp_path: Path, mosquitto_password: Any, listener: Callable[..., Listener]
) -> None:
    file = tmp_path / "password"
    file.write_text(mosquitto_password.password, encoding="utf-8")
    # That it subscribes at all, and ends, shows that the broker took the password.
    listener(
        mosquitto_password.broker.url,
        username=mosquitto_password.username,
        password_file=str(file),
    )
