"""Delivery rate: events into a spool on disk and out to a broker with QoS 1, at full speed.

The agent's own delivery, spool and connection; a mosquitto on loopback; and a subscriber in a
separate process, which checks that all events arrive, once each and in order.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import broker
from edge_agent.config.config import MqttConfig
from edge_agent.delivery import encoding
from edge_agent.delivery.connection_events import Will
from edge_agent.delivery.delivery import Delivery, Draft
from edge_agent.delivery.inbox import Inbox
from edge_agent.delivery.mqtt_connection import Connection
from edge_agent.delivery.spool.message import Message
from edge_agent.delivery.spool.spool import Spool
from edge_agent.errors import EdgeError
from edge_agent.messages.events import BoxPx, BundleRef, Defect, DefectEvent, GateScore, MaskRle
from edge_agent.messages.state import StateDocument

_BOOT = "0" * 32
_WAITING = 2000
"""Most events that wait while events are offered: the line is faster than its broker."""
_SPOOL_BYTES = 64 << 30


@dataclass(frozen=True, slots=True)
class DeliveryRun:
    """Result of one delivery run.

    `seconds` run from the first event offered to the last one acknowledged and recorded on disk.
    `in_order`: the subscriber received all events in the order of their numbers. `memory_mb`:
    resident, of the process with the delivery; idle is connected, with an empty spool.
    """

    events: int
    event_bytes: int
    window: int
    seconds: float
    events_per_s: float
    in_order: bool
    idle_memory_mb: float
    peak_memory_mb: float


def live(
    folder: Path, *, events: int, window: int, progress: Callable[[int], object]
) -> DeliveryRun:
    """Offer events one by one while they are published; return the result."""
    with broker.mosquitto(folder) as port, broker.subscriber(port, events) as heard:
        delivery = _delivery(folder, port, window)
        idle = peak = _memory_mb()
        began = time.monotonic()
        for number in range(events):
            if number % 100 == 0:
                while delivery.counts().messages_pending > _WAITING:
                    time.sleep(0.002)
                peak = max(peak, _memory_mb())
                progress(100)
            delivery.offer(_draft(number))
        peak = max(peak, _drain(delivery, events, lambda _: None))
        seconds = time.monotonic() - began
        return _run(delivery, heard, events, window, seconds, idle, peak)


def backlog(
    folder: Path, *, events: int, window: int, progress: Callable[[int], object]
) -> DeliveryRun:
    """Spool events without a broker and publish them once it is back; return the result."""
    with broker.mosquitto(folder) as port, broker.subscriber(port, events) as heard:
        delivery = _delivery(folder, port, window)
        idle = _memory_mb()
        delivery.stop(0)
        delivery.join()
        _fill(folder, events)
        began = time.monotonic()
        delivery = _delivery(folder, port, window)
        peak = _drain(delivery, events, progress)
        seconds = time.monotonic() - began
        return _run(delivery, heard, events, window, seconds, idle, peak)


def table(runs: dict[str, DeliveryRun]) -> str:
    """Return the runs as a text table."""
    rows = ["run           events  bytes  window  seconds  events/s  in order  idle MB  peak MB"]
    rows += [
        f"{name:10} {r.events:9} {r.event_bytes:6} {r.window:7} {r.seconds:8.1f} "
        f"{r.events_per_s:9.0f}  {'yes' if r.in_order else 'NO':8} {r.idle_memory_mb:8.1f} "
        f"{r.peak_memory_mb:8.1f}"
        for name, r in runs.items()
    ]
    return "\n".join(rows)


def _run(
    delivery: Delivery,
    heard: Pipe,
    events: int,
    window: int,
    seconds: float,
    idle_mb: float,
    peak_mb: float,
) -> DeliveryRun:
    delivery.stop(5)
    delivery.join()
    if not heard.poll(60):
        raise EdgeError("the subscriber did not hear all of it within 60 s; is the machine busy?")
    return DeliveryRun(
        events=events,
        event_bytes=len(_messages(0, 1)[0].payload),
        window=window,
        seconds=round(seconds, 4),
        events_per_s=round(events / seconds, 1),
        in_order=bool(heard.recv()),
        idle_memory_mb=round(idle_mb, 1),
        peak_memory_mb=round(peak_mb, 1),
    )


def _delivery(folder: Path, port: int, window: int) -> Delivery:
    mqtt = MqttConfig(broker=f"mqtt://127.0.0.1:{port}", window=window)
    topic = f"{broker.BASE}/state"
    one = Delivery(
        inbox=Inbox(2 * _WAITING),
        open_spool=lambda: Spool(folder / "spool.sqlite3", _SPOOL_BYTES),
        connect=lambda tell, mqtt311, will: Connection(
            mqtt, "bench", Will(topic, will), tell, mqtt311, (topic,)
        ),
        topic_base=broker.BASE,
        state=StateDocument(
            boot_id=_BOOT,
            state="online",
            agent_version="0",
            bundle=None,
            inspecting=True,
            update=None,
        ),
        window=window,
    )
    one.start()
    while not one.counts().connected:
        time.sleep(0.01)
    return one


def _drain(delivery: Delivery, events: int, progress: Callable[[int], object]) -> float:
    """Wait until all events are delivered; return the peak memory meanwhile, in MB."""
    peak, published = _memory_mb(), 0
    while published < events or delivery.counts().messages_pending:
        if not delivery.is_alive():
            raise EdgeError("the delivery ended by itself")
        time.sleep(0.05)
        peak = max(peak, _memory_mb())
        before, published = published, delivery.counts().events_published
        progress(published - before)
    return peak


def _fill(folder: Path, events: int) -> None:
    spool = Spool(folder / "spool.sqlite3", _SPOOL_BYTES)
    for first in range(0, events, 2000):
        spool.write(_messages(first, min(2000, events - first)), declare=_nothing_gives_way)
    spool.close()


def _messages(first: int, count: int) -> list[Message]:
    found: list[Message] = []
    for number in range(first, first + count):
        found += encoding.messages(_draft(number), number + 1, 1 << 20)
    return found


def _nothing_gives_way(gone: Sequence[Message], before: int) -> Message:  # noqa: ARG001 - as the spool calls it
    raise EdgeError(f"{len(gone)} of the backlog found no room")


def _draft(number: int) -> Draft:
    """Return an event as large as one of the demo's."""
    scratch = Defect(
        id=f"d{number}",
        class_name="scratch",
        class_id=2,
        confidence=0.93,
        box_px=BoxPx(x=480, y=12, width=24, height=30),
        area_px=560,
        area_mm2=35.0,
        across_mm=123.0,
        along_m=14.617,
        mask=MaskRle(
            lines=256, pixels=1600, runs=" ".join(f"{122880 + 256 * x} 30" for x in range(24))
        ),
    )
    data = DefectEvent(
        agent="bench",
        site="site",
        line="line",
        coil="",
        boot_id=_BOOT,
        seq=0,
        replayed=False,
        frame_id=number,
        first_line=256 * number,
        captured_monotonic_ns=number,
        line_count=256,
        encoder_count=None,
        source="",
        gate=GateScore(score_logit=1.0, threshold_logit=0.0, probability=0.7),
        bundle=BundleRef(
            name="bench", version=1, sha256="0" * 64, gate="onnx-int8", segmenter="onnx-int8"
        ),
        latency_ms={"preprocess": 1.2, "gate": 1.4, "segment": 11.6, "total": 15.1},
        defects=(scratch,),
    )
    return Draft(data, 1_700_000_000_000_000_000 + number)


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def as_json(runs: dict[str, DeliveryRun]) -> dict[str, Any]:
    """Return the runs as data for JSON."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(runs))
    return found
