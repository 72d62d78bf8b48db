"""The package on a machine of its own: a real systemd, booted in a container.

`make test-systemd` makes the machine and the package and says where they are; without that the
tests are skipped. They build on one another: one machine lives through all of them, in this order.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.paths import ROOT

UNIT = "linegate-agent.service"
MACHINE, PACKAGE = os.environ.get("LINEGATE_MACHINE"), os.environ.get("LINEGATE_PACKAGE")
WATCHDOG_S = 6

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.skipif(not (MACHINE and PACKAGE), reason="needs a machine: make test-systemd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can boot a machine"),
    pytest.mark.skipif(not shutil.which("systemd-nspawn"), reason="no systemd-nspawn here"),
]


class Machine:
    """A container with a copy-on-write view of the folder that scripts/test-machine.sh made.

    It shares our network, so that a broker of ours on loopback is one on its own.
    """

    def __init__(self, folder: Path, eventually: Callable[..., Any]) -> None:
        self._eventually, self._folder = eventually, folder
        self.root = folder / "root"
        self._console = folder / "console"
        self._boots = 0
        for name in ("root", "upper", "work"):
            (folder / name).mkdir(parents=True)
        layers = f"lowerdir={MACHINE},upperdir={folder}/upper,workdir={folder}/work"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True
        )
        self._nspawn: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        self._boots += 1
        name = f"--machine=linegate-{os.getpid()}-{self._boots}"
        # Needed where nobody has booted with systemd himself.
        Path("/run/systemd/nspawn/propagate").mkdir(parents=True, exist_ok=True)
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
                    "systemd-nspawn",
                    "-D",
                    str(self.root),
                    "--boot",
                    "--register=no",
                    "--keep-unit",
                    name,
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self.wait_until_up()

    def wait_until_up(self) -> None:
        self._eventually(
            lambda: (
                self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")
            ),
            "the machine is up",
            60,
        )

    def _leader(self) -> str | None:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            pytest.fail(f"the machine is gone: {self._console.read_text(errors='replace')}")
        pid = self._nspawn.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip() or None

    def run(self, *words: str | Path, check: bool = False) -> subprocess.CompletedProcess[str]:
        leader = self._leader()
        if leader is None:  # between two boots
            return subprocess.CompletedProcess(words, 255, "", "no machine")
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        command = ["nsenter", "-t", leader, "-a", "env", "-i", path, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        if check:
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def reboot(self) -> None:
        """systemd-nspawn boots again by itself only where /run is in memory; elsewhere it ends."""
        assert self._nspawn is not None
        nspawn, old = self._nspawn, self._leader()
        self.run("systemctl", "reboot")
        self._eventually(
            lambda: nspawn.poll() is not None or self._leader() not in (None, old), "the end", 90
        )
        if nspawn.poll() is None:
            self.wait_until_up()
        else:
            self.boot()

    def close(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            self.run("systemctl", "poweroff")
            try:
                self._nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        subprocess.run(["umount", "--lazy", str(self.root)], check=True)

    # The service.

    def show(self, name: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", name, UNIT, check=True).stdout.strip()

    @property
    def process(self) -> str:
        return self.show("MainPID")

    @property
    def restarts(self) -> int:
        return int(self.show("NRestarts"))

    @property
    def journal(self) -> str:
        return self.run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager", check=True).stdout

    def kill(self, signal: str) -> None:
        self.run("sh", "-c", f"kill -{signal} {self.process}", check=True)

    @property
    def stuck(self) -> list[str]:
        status = self.status()[1]["status"]
        return list(status["stuck"]) if status else []

    def status(self) -> tuple[int, dict[str, Any]]:
        done = self.run("edge-agent", "status", "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def spooled(self) -> set[tuple[str, int]]:
        """(boot_id, seq) of what waits, read while the agent writes."""
        path = self.root / "var/lib/linegate/spool.sqlite3"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
            rows = reader.execute("SELECT payload FROM outbox WHERE state = 0").fetchall()
        data = [json.loads(payload)["data"] for (payload,) in rows]
        return {(one["boot_id"], one["seq"]) for one in data}

    def configure(self, broker: str, bundle: str, camera: str) -> None:
        (self.root / "etc/linegate/agent.toml").write_text(
            f'[agent]\nbundle = "/var/lib/linegate/{bundle}"\n'
            'trusted_keys = ["/etc/linegate/line.key.pub"]\n'
            'state_dir = "/var/lib/linegate"\nthreads = 1\n'
            f"[camera]\n{camera}\n"
            f'[mqtt]\nbroker = "{broker}"\nusername = "line"\n'
            f'password_file = "/run/credentials/{UNIT}/mqtt-password"\n'
            '[health]\nstatus_file = "/run/linegate/status.json"\ninterval_s = 1\n',
            encoding="utf-8",
        )

    def drop_in(self, name: str, text: str) -> None:
        folder = self.root / "etc/systemd/system" / f"{UNIT}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        self.run("systemctl", "daemon-reload", check=True)


SIMULATED = 'kind = "simulated"\nwidth_px = 800\nheight_px = 256\nseed = 7\ndefects_per_m = 15'


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, eventually: Callable[..., Any]
) -> Iterator[Machine]:
    bus = None
    if not Path("/run/dbus/system_bus_socket").exists():
        Path("/run/dbus").mkdir(exist_ok=True)
        bus = subprocess.Popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"])
    one = Machine(tmp_path_factory.mktemp("machine"), eventually)
    try:
        one.boot()
        yield one
    finally:
        one.close()
        if bus:
            bus.terminate()
            bus.wait()


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, start_mosquitto: Callable[..., Any]
) -> Iterator[Any]:
    """A mosquitto that asks for a password and lives through the whole story."""
    folder = tmp_path_factory.mktemp("broker")
    passwords = folder / "passwords"
    command = ["mosquitto_passwd", "-b", "-c", str(passwords), "line", "open sesame"]
    subprocess.run(command, check=True)
    one = start_mosquitto(folder, "allow_anonymous false", f"password_file {passwords}")
    yield one
    one.kill()


@pytest.fixture
def heard(subscriber: Callable[..., Any], broker: Any) -> Any:
    return subscriber(broker.port, username="line", password="open sesame")


def ids(heard: Any) -> set[tuple[str, int]]:
    return {(data["boot_id"], data["seq"]) for data in heard.numbered()}


def test_the_package_installs_without_a_network_and_starts_nothing(machine: Machine) -> None:
    shutil.copy(str(PACKAGE), machine.root / "linegate.deb")
    # Without a name server and without routes of its own: dpkg alone, no pip.
    done = machine.run("dpkg", "--install", "/linegate.deb", check=True)
    assert "installed and not started" in done.stdout
    assert machine.run("dpkg", "--verify", "linegate", check=True).stdout == ""
    assert machine.run("id", "-un", "linegate", check=True).stdout == "linegate\n"
    assert machine.run("systemctl", "is-enabled", UNIT).stdout.strip() == "disabled"
    modes = machine.run("stat", "-c", "%U %a", "/var/lib/linegate", "/etc/linegate/credentials")
    assert modes.stdout.split("\n")[:2] == ["linegate 750", "root 700"]
    # Not a file that the agent could change about itself.
    owned = machine.run(
        "find", "/opt/linegate", "(", "-user", "linegate", "-o", "-perm", "-002", ")"
    )
    assert [
        line for line in owned.stdout.split() if not (machine.root / line[1:]).is_symlink()
    ] == []
    code, answer = machine.status()
    assert (code, answer["running"]) == (1, False)


def test_without_a_bundle_it_is_refused_once(machine: Machine) -> None:
    assert machine.run("systemctl", "start", UNIT).returncode != 0
    assert machine.show("ExecMainStatus") == "2"
    time.sleep(3)  # RestartSec is 2
    assert machine.restarts == 0
    assert "agent.trusted_keys: /etc/linegate/line.key.pub: No such file" in machine.journal


def test_it_inspects_as_its_own_user(
    machine: Machine,
    broker: Any,
    heard: Any,
    tiny_bundle: Path,
    write_bundle: Callable[..., Path],
    sign_bundle: Callable[..., Path],
    key_pair: Path,
    eventually: Callable[..., Any],
) -> None:
    state = machine.root / "var/lib/linegate"
    sign_bundle(Path(shutil.copytree(tiny_bundle, state / "bundle")))
    sign_bundle(write_bundle(state / "hanging", trap="hang"))
    shutil.copy(f"{key_pair}.pub", machine.root / "etc/linegate/line.key.pub")
    credential = machine.root / "etc/linegate/credentials/mqtt-password"
    credential.write_text("open sesame\n")
    credential.chmod(0o600)
    shipped = machine.root / "usr/share/linegate/drop-ins/mqtt-credentials.conf"
    machine.drop_in("mqtt-credentials.conf", shipped.read_text())
    machine.drop_in("test.conf", f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
    machine.configure(broker.url, "bundle", SIMULATED)

    machine.run("systemctl", "start", UNIT, check=True)  # returns at READY=1
    heard.wait("event", 3)
    user = machine.run("stat", "-c", "%U", f"/proc/{machine.process}", check=True).stdout
    assert user == "linegate\n"
    assert "frames inspected" in machine.show("StatusText")
    eventually(lambda: machine.status()[0] == 0, "a status that is well")
    code, answer = machine.status()
    assert (code, answer["well"], answer["troubles"]) == (0, True, [])
    assert set(answer["status"]["stages"]) == {"camera", "inference", "spool", "publisher"}
    assert answer["status"]["health"]["spool"] == "disk"
    assert machine.run("edge-agent", "status", check=True).stdout.startswith("well: agent, ")
    environment = machine.run("cat", f"/proc/{machine.process}/environ", check=True).stdout
    command = machine.run("cat", f"/proc/{machine.process}/cmdline", check=True).stdout
    assert "open sesame" not in environment + command + machine.journal


def test_who_may_read_what(machine: Machine, eventually: Callable[..., Any]) -> None:
    eventually(lambda: machine.status()[0] == 0, "a status that is well")

    def reads(user: str, *words: str) -> bool:
        return machine.run("runuser", "-u", user, "--", *words).returncode == 0

    secret = ("cat", "/etc/linegate/credentials/mqtt-password")
    spool, status = "/var/lib/linegate/spool.sqlite3", "/run/linegate/status.json"
    assert reads("linegate", "cat", spool)
    assert reads("linegate", "cat", status)
    assert not reads("linegate", *secret)
    for path in (spool, status, secret[1]):
        assert not reads("nobody", "cat", path), path
    asked = machine.run("runuser", "-u", "nobody", "--", "edge-agent", "status")
    assert asked.returncode == 1
    assert "Permission denied; ask as root" in asked.stderr


def listening(run: Callable[..., subprocess.CompletedProcess[str]], process: str) -> set[int]:
    """TCP ports that a process takes connections on."""
    tables = run("cat", f"/proc/{process}/net/tcp", f"/proc/{process}/net/tcp6").stdout
    sockets = run("ls", "-l", f"/proc/{process}/fd").stdout
    assert "socket:[" in sockets
    rows = [line.split() for line in tables.splitlines() if "local_address" not in line]
    return {
        int(row[1].rpartition(":")[2], 16)
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    }


def test_nobody_can_reach_it_over_the_network(machine: Machine) -> None:
    def here(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, check=False)

    with socket.create_server(("127.0.0.1", 0)) as control:
        assert control.getsockname()[1] in listening(here, str(os.getpid()))
    assert listening(machine.run, machine.process) == set()


def test_systemd_finds_it_little_exposed(machine: Machine) -> None:
    done = machine.run("systemd-analyze", "security", "--no-pager", UNIT, check=True)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout[-300:]
    assert float(found[1]) <= 2.0, done.stdout[-300:]


def test_a_kill_loses_nothing(
    machine: Machine, broker: Any, heard: Any, eventually: Callable[..., Any]
) -> None:
    broker.stop()
    eventually(lambda: len(machine.spooled()) >= 3, "events kept while the broker is away")

    def without_broker() -> bool:
        # It may be late with its status first, or next: one answer says both.
        code, answer = machine.status()
        return code == 1 and any(t.startswith("broker: ") for t in answer["troubles"])

    eventually(without_broker, "a status that is not well because of the broker")
    before, restarts = machine.process, machine.restarts
    machine.kill("KILL")
    waiting = machine.spooled()
    eventually(lambda: machine.process not in ("0", before), "another process")
    assert machine.restarts == restarts + 1
    broker.start()
    eventually(lambda: waiting <= ids(heard), "every event that was in the spool")


def test_a_frozen_process_is_restarted(machine: Machine, eventually: Callable[..., Any]) -> None:
    eventually(lambda: machine.status()[0] == 0, "a status that is well")
    before, restarts = machine.process, machine.restarts
    machine.kill("STOP")

    def silent() -> bool:
        # The watchdog does not wait for a second question.
        code, answer = machine.status()
        return code == 1 and "silent" in answer["troubles"][0]

    eventually(silent, "a status that is not well, of one that is silent")
    eventually(lambda: machine.restarts == restarts + 1, "a restart")
    eventually(lambda: machine.process not in ("0", before), "another process")
    # systemd wakes what it kills, so even this one could say where it stood.
    assert "Watchdog timeout" in machine.journal
    assert "Fatal Python error: Aborted" in machine.journal
    eventually(lambda: machine.status()[0] == 0, "a status that is well")


def test_nothing_else_makes_the_watchdog_strike(
    machine: Machine, broker: Any, heard: Any, eventually: Callable[..., Any]
) -> None:
    """A broker that hangs, for three times as long as the watchdog waits."""
    before = machine.process
    broker.freeze()
    time.sleep(3 * WATCHDOG_S)
    waiting = machine.spooled()
    broker.thaw()
    assert len(waiting) >= 3
    assert machine.process == before
    eventually(lambda: waiting <= ids(heard), "every event that was in the spool")
    eventually(lambda: machine.status()[0] == 0, "a status that is well")
    assert machine.process == before


def test_a_hanging_network_leaves_its_stack_and_is_restarted(
    machine: Machine, broker: Any, frames: Path, eventually: Callable[..., Any]
) -> None:
    folder = machine.root / "var/lib/linegate/frames"
    shutil.copytree(frames, folder)
    folder.chmod(0o755)  # pytest's own are for us alone
    last = sorted(folder.iterdir())[-1]
    cv2.imwrite(str(last), np.full((256, 800), 245, np.uint8))
    camera = 'kind = "folder"\npath = "/var/lib/linegate/frames"'
    machine.configure(broker.url, "hanging", camera)
    known = len(machine.journal)
    machine.run("systemctl", "restart", UNIT, check=True)
    before = machine.restarts
    eventually(lambda: machine.stuck == ["inference"], "a stuck stage")
    assert "inference stands still" in machine.show("StatusText") + machine.journal
    # It hangs again after each restart: on a busy machine we may look when it already has.
    eventually(lambda: machine.restarts > before, "a restart", 60)
    told = machine.journal[known:]
    stood = told.index("inference stands still")
    struck = told.index("Watchdog timeout")
    assert stood < struck, "first the stack, then the watchdog"
    assert "edge_agent/inspection/runtime/onnx.py" in told[stood:struck]
    assert "in _inspect_loop" in told[stood:struck]
    machine.configure(broker.url, "bundle", SIMULATED)
    machine.run("systemctl", "restart", UNIT, check=True)


def test_it_comes_back_after_a_reboot(
    machine: Machine, broker: Any, heard: Any, eventually: Callable[..., Any]
) -> None:
    machine.run("systemctl", "enable", UNIT, check=True)
    broker.stop()
    eventually(lambda: len(machine.spooled()) >= 3, "events kept while the broker is away")
    machine.reboot()
    waiting = machine.spooled()
    assert len(waiting) >= 3
    eventually(lambda: machine.show("ActiveState") == "active", "the agent runs")
    broker.start()
    eventually(lambda: waiting <= ids(heard), "every event from before the reboot")


def test_an_upgrade_keeps_configuration_and_state(
    machine: Machine, heard: Any, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    config = machine.root / "etc/linegate/agent.toml"
    kept = config.read_text()
    unpacked = tmp_path / "unpacked"
    subprocess.run(["dpkg-deb", "--raw-extract", str(PACKAGE), str(unpacked)], check=True)
    control = unpacked / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", r"Version: \1+1", control.read_text()))
    newer = machine.root / "newer.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--build", str(unpacked), str(newer)], check=True)
    eventually(lambda: machine.status()[0] == 0, "a status that is well")
    before = machine.process
    machine.run("dpkg", "--install", "/newer.deb", check=True)
    version = machine.run("dpkg-query", "-W", "-f", "${Version}", "linegate").stdout
    assert version.endswith("+1")
    assert config.read_text() == kept
    assert machine.process not in ("0", before)
    eventually(lambda: machine.status()[0] == 0, "a status that is well")
    assert heard.wait("event")
    versions = machine.root / "var/lib/linegate/bundle-versions.json"
    assert "tiny" in versions.read_text()


def test_what_is_removed_leaves_its_data(machine: Machine) -> None:
    done = machine.run("dpkg", "--remove", "linegate", check=True)
    assert "/var/lib/linegate stays" in done.stdout
    assert machine.run("systemctl", "is-active", UNIT).stdout.strip() != "active"
    for gone in ("opt/linegate", "usr/bin/edge-agent", f"usr/lib/systemd/system/{UNIT}"):
        assert not os.path.lexists(machine.root / gone)
    machine.run("dpkg", "--purge", "linegate", check=True)
    for there in ("var/lib/linegate/spool.sqlite3", "etc/linegate/line.key.pub"):
        assert (machine.root / there).exists()
    assert machine.run("id", "-un", "linegate").stdout == "linegate\n"


def test_an_installation_without_the_package_is_uninstalled(
    machine: Machine, tmp_path: Path
) -> None:
    """The files as scripts/install.sh lays them, and the script that takes them away."""
    subprocess.run(["dpkg-deb", "--extract", str(PACKAGE), str(machine.root)], check=True)
    for folder in ("scripts", "systemd"):
        shutil.copytree(ROOT / folder, machine.root / "source" / folder)
    machine.run("sh", "/source/systemd/deb/postinst", "configure", check=True)
    assert machine.run("systemctl", "is-enabled", UNIT).stdout.strip() == "disabled"
    machine.run("sh", "/source/scripts/uninstall.sh", check=True)
    for gone in ("opt/linegate", "usr/bin/edge-agent", f"usr/lib/systemd/system/{UNIT}"):
        assert not os.path.lexists(machine.root / gone)
    for there in ("var/lib/linegate/spool.sqlite3", "etc/linegate/agent.toml"):
        assert (machine.root / there).exists()
