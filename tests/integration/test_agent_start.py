"""A start that fails half way closes all that was opened before, and so does the end of a run."""

from __future__ import annotations

import contextlib
import gc
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import agent as agents
from edge_agent.bundle import archive
from edge_agent.bundle.reader import load
from edge_agent.config import config as configs
from edge_agent.config.config import Config
from edge_agent.delivery import embedded_broker
from edge_agent.errors import BundleError, CameraError, ConfigError, EdgeError
from edge_agent.supervision.instance_lock import InstanceLock

PARTS = ("Delivery", "Pipeline", "CommandReceiver", "StateKeeper", "Supervisor", "Updater")
THREADS = ("delivery", "camera", "update", "commands")


@contextlib.contextmanager
def taken(port: int) -> Iterator[None]:
    """Another program listens there."""
    with socket.create_server(("127.0.0.1", port)):
        yield


def is_free(port: int) -> bool:
    with contextlib.suppress(OSError), taken(port):
        return True
    return False


class Line:
    """The configuration of an agent with every part, and what may stay open after it."""

    def __init__(
        self, folder: Path, write: Callable[..., Path], eventually: Callable[..., Any]
    ) -> None:
        self._write, self._eventually = write, eventually
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.metrics_port, self.broker_port = one.getsockname()[1], other.getsockname()[1]
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.cameras: list[Any] = []
        self._threads = set(threading.enumerate())

    def config(self, **sections: dict[str, Any]) -> Config:
        tree: dict[str, dict[str, Any]] = {
            "mqtt": {"port": self.broker_port},
            "health": {"metrics_port": self.metrics_port},
            "commands": {"allow": ["status"]},
        }
        for section, keys in sections.items():
            tree[section] = {**tree.get(section, {}), **keys}
        return configs.load(self._write("embedded", **tree))

    def is_closed(self, config: Config, *, lock: bool = True, ports: bool = True) -> None:
        def left() -> list[threading.Thread]:
            return [one for one in threading.enumerate() if one not in self._threads]

        self._eventually(lambda: not left(), "the end of all threads")
        assert all(camera.closed for camera in self.cameras)
        assert list(self.temporary.iterdir()) == []
        if lock:
            InstanceLock(config.state_dir).release()
        if ports:
            assert is_free(self.metrics_port)
            assert is_free(self.broker_port)
        assert not config.status_file.exists()
        gc.collect()  # a socket or a loop that nobody closed is a warning, and so an error, here


@pytest.fixture
def line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config_file: Callable[..., Path],
    eventually: Callable[..., Any],
) -> Line:
    made = Line(tmp_path, config_file, eventually)
    open_camera = agents.open_camera

    def watched(*arguments: Any, **keys: Any) -> Any:
        camera: Any = open_camera(*arguments, **keys)
        camera.closed, close = False, camera.close

        def closing() -> None:
            close()
            camera.closed = True

        camera.close = closing
        made.cameras.append(camera)
        return camera

    monkeypatch.setattr(agents, "open_camera", watched)
    monkeypatch.setattr(agents, "_DRAIN_S", 2.0)
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    return made


def test_a_whole_run_leaves_nothing_open(line: Line) -> None:
    config = line.config()
    summary = agents.Agent(config, 3).run()
    assert summary["frames_inspected"] == 3
    assert len(line.cameras) == 1
    line.is_closed(config)


def test_an_agent_that_is_not_run_is_closed_by_hand(line: Line) -> None:
    config = line.config()
    agent = agents.Agent(config)
    assert not is_free(line.metrics_port)
    assert not is_free(line.broker_port)
    with pytest.raises(ConfigError, match="another agent is using it"):
        InstanceLock(config.state_dir)
    agent.close()
    agent.close()  # and once more does nothing
    line.is_closed(config)


# Parts that refuse, each for a real reason.


def test_a_lock_that_another_holds_stays_his(line: Line) -> None:
    config = line.config()
    other = InstanceLock(config.state_dir)
    with pytest.raises(ConfigError, match="another agent is using it"):
        agents.Agent(config)
    with pytest.raises(ConfigError):
        InstanceLock(config.state_dir)
    other.release()
    line.is_closed(config)


def test_credentials_that_are_not_there(line: Line, tmp_path: Path) -> None:
    config = line.config(mqtt={"ca_file": str(tmp_path / "none.pem")})
    with pytest.raises(ConfigError, match="ca_file"):
        agents.Agent(config)
    line.is_closed(config)


def test_a_bundle_that_is_damaged(line: Line, tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    (damaged / "golden.npz").write_bytes(b"damaged")
    config = line.config(agent={"bundle": str(damaged)})
    with pytest.raises(BundleError):
        agents.Agent(config)
    line.is_closed(config)


def test_a_metrics_port_that_is_taken(line: Line) -> None:
    config = line.config()
    with taken(line.metrics_port), pytest.raises(ConfigError, match=r"health\.metrics_port"):
        agents.Agent(config)
    line.is_closed(config)


def test_a_camera_that_is_not_there(line: Line, tmp_path: Path) -> None:
    config = line.config(camera={"path": str(tmp_path / "none")})
    with pytest.raises((CameraError, ConfigError)):
        agents.Agent(config)
    assert line.cameras == []
    line.is_closed(config)


def test_a_brokers_port_that_is_taken(line: Line) -> None:
    config = line.config()
    with taken(line.broker_port), pytest.raises(ConfigError, match=r"mqtt\.port"):
        agents.Agent(config)
    assert len(line.cameras) == 1
    line.is_closed(config)


def test_what_was_unpacked_goes_with_a_start_that_fails(
    line: Line, tiny_bundle: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "bundle.lgb"
    archive.pack(load(tiny_bundle), packed)
    config = line.config(agent={"bundle": str(packed)})
    agent = agents.Agent(config)
    assert len(list(line.temporary.iterdir())) == 1
    agent.close()
    with taken(line.broker_port), pytest.raises(ConfigError, match=r"mqtt\.port"):
        agents.Agent(config)
    line.is_closed(config)


def test_a_spool_that_cannot_be_opened_stops_no_line(line: Line) -> None:
    config = line.config()
    config.spool_file.mkdir(parents=True)
    agent = agents.Agent(config, 3)
    assert agent.run()["frames_inspected"] == 3
    line.is_closed(config)


# What no configuration can bring about.


def test_a_broker_that_fails_while_it_starts(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: object) -> None:
        raise RuntimeError("no broker today")

    monkeypatch.setattr(embedded_broker._Broker, "start", fails)
    config = line.config()
    with pytest.raises(RuntimeError, match="no broker today"):
        agents.Agent(config)
    assert len(line.cameras) == 1
    line.is_closed(config)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_cannot_be_built(
    line: Line, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise EdgeError(f"no {part} today")

    monkeypatch.setattr(agents, part, fails)
    config = line.config()
    with pytest.raises(EdgeError, match=part):
        agents.Agent(config)
    assert len(line.cameras) == 1
    line.is_closed(config)


@pytest.mark.parametrize("name", ["broker", "metrics"])
def test_a_server_whose_thread_cannot_be_started(
    line: Line, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _no_thread(monkeypatch, name)
    config = line.config()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        agents.Agent(config)
    line.is_closed(config)


@pytest.mark.parametrize("name", THREADS)
def test_a_thread_that_cannot_be_started(
    line: Line, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = line.config(camera={"loop": True})
    agent = agents.Agent(config)
    _no_thread(monkeypatch, name)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        agent.run()
    line.is_closed(config)


def test_a_failure_between_two_frames(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    config = line.config(camera={"loop": True})
    agent = agents.Agent(config)

    def fails(now_s: float) -> None:
        raise RuntimeError("no look today")

    monkeypatch.setattr(agent._supervisor, "look", fails)
    with pytest.raises(RuntimeError, match="no look today"):
        agent.run()
    line.is_closed(config)


def _no_thread(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As where the system has no thread left."""
    start = threading.Thread.start

    def failing(self: threading.Thread) -> None:
        if self.name == name:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", failing)
