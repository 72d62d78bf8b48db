"""Who stands still, what is done about it, and that nothing else is done."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.delivery.connection_events import Will
from edge_agent.delivery.delivery import Delivery
from edge_agent.delivery.inbox import Inbox
from edge_agent.delivery.mqtt_connection import Connection
from edge_agent.delivery.spool.spool import Spool
from edge_agent.messages.state import StateDocument
from edge_agent.supervision.watchdog import Watchdog

STAGES = ("camera", "inference", "spool", "publisher")


class Rig:
    """A watchdog of 20 s: a stage stands still after 10 s, the word is due every 5 s."""

    def __init__(self, watchdog_s: float | None = 20.0) -> None:
        self.words = self.dumps = self.restarts = 0
        self.marks = dict.fromkeys(STAGES, 0.0)
        self.now = 0.0
        self.watchdog = Watchdog(
            watchdog_s, say=self._say, dump=self._dump, restart_publisher=self._restart
        )

    def _say(self) -> None:
        self.words += 1

    def _dump(self) -> None:
        self.dumps += 1

    def _restart(self) -> None:
        self.restarts += 1

    def run(self, seconds: int, *, but: str = "") -> None:
        """So many seconds, in each of which every stage comes round, `but` one."""
        for _ in range(seconds):
            self.now += 1.0
            for stage in STAGES:
                if stage != but:
                    self.marks[stage] = self.now
            self.watchdog.look(self.marks, self.now)


def test_the_word_goes_out_four_times_as_often_as_systemd_asks() -> None:
    rig = Rig()
    rig.run(101)
    assert (rig.words, rig.dumps, rig.restarts) == (21, 0, 0)


@pytest.mark.parametrize("stage", ["camera", "inference", "spool"])
def test_a_stage_that_stands_holds_the_word_back_after_its_stacks(stage: str) -> None:
    rig = Rig()
    rig.run(10)
    words = rig.words
    rig.run(10, but=stage)
    assert (rig.dumps, rig.watchdog.stuck) == (0, ())
    assert rig.words == words + 2
    rig.run(100, but=stage)
    assert (rig.dumps, rig.restarts, rig.watchdog.stuck) == (1, 0, (stage,))
    assert rig.words == words + 2
    rig.run(1)
    assert rig.watchdog.stuck == ()
    assert rig.words == words + 3


def test_a_publisher_that_stands_is_restarted_and_systemd_hears_nothing_of_it() -> None:
    rig = Rig()
    rig.run(10)
    words = rig.words
    rig.run(100, but="publisher")
    assert rig.words == words + 20
    assert rig.dumps == 1
    # At 11 s, and again for as long as it does not help.
    assert rig.restarts == rig.watchdog.publisher_restarts == 9
    rig.run(20)
    assert rig.restarts == 9


def test_without_systemd_a_stage_that_stands_is_still_named() -> None:
    rig = Rig(None)
    rig.run(16, but="inference")
    assert (rig.watchdog.stuck, rig.dumps) == (("inference",), 1)


@given(
    pauses=st.lists(st.tuples(st.sampled_from(STAGES), st.floats(0.01, 9.9)), max_size=60),
)
def test_pauses_below_the_limit_never_hold_the_word_back(pauses: list[tuple[str, float]]) -> None:
    """Whatever the pattern: systemd hears from us before its time is over."""
    rig = Rig()
    last_word = 0.0
    for stage, pause_s in pauses:
        end = rig.now + pause_s
        rig.marks[stage] = rig.now
        while rig.now < end:
            rig.now = min(rig.now + 0.5, end)
            rig.marks.update({other: rig.now for other in STAGES if other != stage})
            words = rig.words
            rig.watchdog.look(rig.marks, rig.now)
            if rig.words > words:
                last_word = rig.now
            assert rig.now - last_word < 20
        rig.marks[stage] = rig.now
    assert (rig.dumps, rig.restarts) == (0, 0)


@pytest.fixture
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], str]]:
    """What systemd would hear, and where: the words with the time they came."""
    path = tmp_path_factory.mktemp("notify") / "s"
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(0.2)
        over = threading.Event()

        def listen() -> None:
            while not over.is_set():
                try:
                    heard.append(listener.recv(4096).decode())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        yield heard, str(path)
        over.set()
        thread.join()


@pytest.mark.system
@pytest.mark.faults
@pytest.mark.parametrize("where", ["inference", "camera"])
def test_a_stage_that_hangs_inside(
    where: str,
    tmp_path: Path,
    frames: Path,
    write_bundle: Callable[..., Path],
    mosquitto: Any,
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
    systemd: tuple[list[str], str],
) -> None:
    """A network that never returns from native code; an image that is a pipe nobody writes to."""
    heard, address = systemd
    folder = Path(shutil.copytree(frames, tmp_path / "frames"))
    last = sorted(folder.iterdir())[-1]
    bundle = write_bundle(tmp_path / "hanging", trap="hang")
    if where == "inference":
        cv2.imwrite(str(last), np.full((256, 800), 245, np.uint8))
    else:
        last.unlink()
        os.mkfifo(last)
    running = agent(
        config_file(
            mosquitto.url,
            agent={"bundle": str(bundle)},
            camera={"path": str(folder)},
            health={"interval_s": 0.5},
        ),
        NOTIFY_SOCKET=address,
        WATCHDOG_USEC="4000000",
    )
    eventually(lambda: f"{where} stands still" in running.stderr, "word of the stage that hangs")
    eventually(lambda: any(f"{where} stands still" in word for word in heard), "word to systemd")
    file = {
        "inference": "edge_agent/inspection/runtime/onnx.py",
        "camera": "edge_agent/camera/backends/folder.py",
    }
    assert "most recent call first" in running.stderr
    assert file[where] in running.stderr
    others = [stage for stage in STAGES if stage != where and f"{stage} stands" in running.stderr]
    assert others == []  # nor the camera, which is at its end while the network hangs
    assert heard.index("READY=1") < heard.index("WATCHDOG=1")
    words = heard.count("WATCHDOG=1")
    time.sleep(2)
    assert heard.count("WATCHDOG=1") == words
    assert running.running, "it is systemd's to kill it"


@pytest.mark.system
@pytest.mark.faults
def test_a_publisher_whose_thread_hangs_is_restarted_inside(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    mqtt_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Any],
) -> None:
    """The first look-up of the broker's name never comes back: paho's thread hangs in it."""
    released = threading.Event()
    look_up, asked = socket.getaddrinfo, []

    def name_server(host: Any, *more: Any, **keys: Any) -> Any:
        if host == "broker.example":
            asked.append(host)
            if len(asked) == 1:
                released.wait(60)
            host = "127.0.0.1"
        return look_up(host, *more, **keys)

    monkeypatch.setattr(socket, "getaddrinfo", name_server)
    config = mqtt_config(f"mqtt://broker.example:{mosquitto.port}", protocol="3.1.1")
    heard = subscriber(mosquitto.port)
    topic = "linegate/site/line/agent/state"
    state = StateDocument(
        boot_id="b" * 32,
        state="online",
        agent_version="0.1.0",
        bundle=None,
        inspecting=True,
        update=None,
    )
    inbox = Inbox(10)
    delivery = Delivery(
        inbox=inbox,
        open_spool=lambda: Spool(tmp_path / "spool.sqlite3", 1 << 20),
        connect=lambda tell, mqtt311, will: Connection(
            config, "agent", Will(topic, will), tell, mqtt311
        ),
        topic_base="linegate/site/line/agent",
        state=state,
        window=10,
        mqtt311=True,
    )
    words: list[float] = []
    watchdog = Watchdog(
        6.0,
        say=lambda: words.append(time.monotonic()),
        dump=lambda: None,
        restart_publisher=inbox.restart_publisher,
    )
    delivery.start()

    def online() -> bool:
        marks = {"spool": delivery.progress_s, "publisher": delivery.publisher_progress_s}
        watchdog.look(marks, time.monotonic())
        return delivery.counts().connected

    try:
        eventually(online, "a connection in spite of the name server")
        assert watchdog.publisher_restarts == 1
        assert len(asked) == 2
        heard.wait("state")
        assert words, "systemd heard that all is well"
    finally:
        released.set()
        delivery.stop(5.0)
        delivery.join(30)
    assert not delivery.is_alive()
