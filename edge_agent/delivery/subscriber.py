"""Subscriber to events and gaps of all agents; formats each as one line for a person."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.config.config import MqttConfig
from edge_agent.delivery import credentials
from edge_agent.delivery.mqtt_connection import address
from edge_agent.errors import BrokerError
from edge_agent.messages.events import CloudEvent, DefectEvent, GapEvent

_MAX_PAYLOAD_BYTES = 16 << 20
_SHOWN = 3  # defects shown on a line; they are sorted by size, largest first


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """Received message; `event` is decoded from `payload`."""

    topic: str
    payload: bytes
    event: CloudEvent[DefectEvent] | CloudEvent[GapEvent]


def listen(
    config: MqttConfig, on_subscribed: Callable[[], None]
) -> Iterator[ReceivedMessage | str]:
    """Yield events and gaps as they arrive, for ever.

    Duplicates by (agent, boot_id, seq) are left out. For an invalid message a str with the error is
    yielded. Reconnects by itself, also if the first connection fails.

    Args:
        config: address and credentials of the broker.
        on_subscribed: called in paho's thread at each new subscription.

    Raises:
        BrokerError: the credentials or certificates cannot be read.
    """
    host, port, tls = address(config)
    inbox: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.reconnect_delay_set(min_delay=1, max_delay=5)
    try:
        if config.username:
            client.username_pw_set(config.username, credentials.password(config))
        if tls:
            client.tls_set_context(credentials.tls_context(config))
    except OSError as error:
        raise BrokerError(
            f"--password-file, --ca-file, --cert-file or --key-file: {error}"
        ) from None

    def on_connect(c: mqtt.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if not reason.is_failure:
            c.subscribe([(f"{config.root}/+/+/+/{kind}", 1) for kind in ("event", "gap")])

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: on_subscribed()
    client.on_message = lambda _c, _u, m: inbox.put((m.topic, bytes(m.payload)))
    client.connect_async(host, port, keepalive=config.keepalive_s)
    client.loop_start()
    last: dict[tuple[str, str], set[int]] = {}
    try:
        while True:
            topic, payload = inbox.get()
            try:
                event = decode(topic, payload)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                yield f"{topic}: {error}"
                continue
            seen = last.setdefault((event.data.agent, event.data.boot_id), set())
            if event.data.seq not in seen:
                seen.add(event.data.seq)
                yield ReceivedMessage(topic, payload, event)
    finally:
        client.disconnect()
        client.loop_stop()


def decode(topic: str, payload: bytes) -> CloudEvent[DefectEvent] | CloudEvent[GapEvent]:
    """Decode a payload by its topic.

    Raises:
        ValueError: the payload is too large.
        msgspec.DecodeError: the payload is not a valid event or gap.
        RecursionError: the payload is nested thousands of levels deep.
    """
    if len(payload) > _MAX_PAYLOAD_BYTES:
        raise ValueError(f"{len(payload)} bytes, more than {_MAX_PAYLOAD_BYTES}")
    if topic.rpartition("/")[2] == "event":
        return msgspec.json.decode(payload, type=CloudEvent[DefectEvent])
    return msgspec.json.decode(payload, type=CloudEvent[GapEvent])


def line(event: CloudEvent[DefectEvent] | CloudEvent[GapEvent]) -> str:
    """Return the event as one line for a person.

    Example: 12:03:04.123 agent frame 57: scratch 0.93 at 123 mm across, 14.62 m along, 35 mm²
    """
    data = event.data
    head = f"{event.time[11:23]} {data.agent} frame {data.frame_id}"
    if isinstance(data, GapEvent):
        return f"{head}: NOT INSPECTED ({data.reason.value}): {data.detail}"
    parts = []
    for defect in data.defects[:_SHOWN]:
        if defect.across_mm is None or defect.along_m is None or defect.area_mm2 is None:
            box = defect.box_px
            where = f"at x {box.x} px, y {box.y} px, {defect.area_px} px"
        else:
            where = (
                f"at {defect.across_mm:.0f} mm across, {defect.along_m:.2f} m along, "
                f"{defect.area_mm2:.0f} mm²"
            )
        parts.append(f"{defect.class_name} {defect.confidence:.2f} {where}")
    if len(data.defects) > _SHOWN:
        parts.append(f"and {len(data.defects) - _SHOWN} smaller")
    return f"{head}{' (replayed)' if data.replayed else ''}: {'; '.join(parts)}"
