"""Receiving side of a delivery run: a mosquitto, and a subscriber that checks the order."""

from __future__ import annotations

import contextlib
import getpass
import multiprocessing
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import EdgeError

BASE = "linegate/site/line/bench"


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """Run mosquitto on loopback with its files in `folder`; yield the port. Raises EdgeError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    program = shutil.which("mosquitto", path=path)
    if program is None:
        raise EdgeError("mosquitto: is not installed; install the package mosquitto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    # Started as root, mosquitto changes to a user without access to our folder.
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\n"
        "max_queued_messages 0\nlog_dest none\n",
        encoding="utf-8",
    )
    command = [program, "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            yield port
        finally:
            process.kill()


@contextlib.contextmanager
def subscriber(port: int, events: int) -> Iterator[Pipe]:
    """Run a subscriber; yield a pipe that receives True after `events` events in order.

    Raises EdgeError if the subscriber does not connect.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_listen, args=(port, events, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(60) or ours.recv() != "subscribed":
            raise EdgeError("the subscriber could not connect to mosquitto")
        yield ours
    finally:
        process.kill()
        process.join()


class _Number(msgspec.Struct, frozen=True):
    seq: int


class _Envelope(msgspec.Struct, frozen=True):
    data: _Number


def _listen(port: int, events: int, pipe: Any) -> None:
    """Subscribe in the other process; send "subscribed", then True if 1..`events` came in order."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    decoder = msgspec.json.Decoder(_Envelope)
    last, in_order = 0, True

    def on_message(_c: mqtt.Client, _u: Any, message: mqtt.MQTTMessage) -> None:
        nonlocal last, in_order
        seq = decoder.decode(message.payload).data.seq
        in_order = in_order and seq == last + 1
        last = seq
        if last == events:
            pipe.send(in_order)

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_message = on_message
    client.on_connect = lambda c, *_: c.subscribe(f"{BASE}/event", 1)
    client.on_subscribe = lambda *_: pipe.send("subscribed")
    for _ in range(100):
        try:
            client.connect("127.0.0.1", port)
        except OSError:
            time.sleep(0.1)
        else:
            break
    client.loop_forever()
