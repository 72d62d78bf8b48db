"""The systemd unit and the default configuration, as systemd and the agent read them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.config import config
from tests.support.paths import ROOT

UNIT = ROOT / "systemd" / "linegate-agent.service"
DROP_INS = sorted((ROOT / "systemd" / "drop-ins").glob("*.conf"))
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), *(ROOT / "systemd" / "deb").glob("p*")])

pytestmark = pytest.mark.system


def _analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: scripts/system-packages.sh test installs it"
    command = [program, *(str(w) for w in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the path of a program that exists here: systemd looks whether it does."""
    text = UNIT.read_text()
    assert "/opt/linegate/bin/edge-agent" in text
    here = Path(sys.executable).with_name("edge-agent")
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/linegate/bin/edge-agent", str(here)))
    return copy


def test_systemd_finds_nothing_to_complain_about(unit: Path) -> None:
    done = _analyze("verify", unit)
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr


def test_a_broken_unit_would_be_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("Type=notify", "Type=notiffy"))
    assert unit.name in _analyze("verify", unit).stderr


def test_exposure_is_low(unit: Path) -> None:
    """At most 2.0 for a network camera: the unit as it is, without a drop-in."""
    assert "AF_NETLINK" in unit.read_text()
    done = _analyze("security", "--offline=true", "--threshold=20", unit)
    assert done.returncode == 0, done.stdout[-500:]


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_systemd_takes_each_drop_in(unit: Path, drop_in: Path) -> None:
    """As it is, and with what is commented out in it."""
    text = drop_in.read_text()
    folder = unit.with_name(f"{unit.name}.d")
    folder.mkdir()
    for content in (text, re.sub(r"(?m)^#(?=[A-Z]\w+=)", "", text)):
        (folder / drop_in.name).write_text(content)
        done = _analyze("verify", unit)
        assert done.returncode == 0, done.stderr
        assert drop_in.name not in done.stderr, done.stderr
    (folder / drop_in.name).write_text(text)
    done = _analyze("security", "--offline=true", "--threshold=25", unit)
    assert done.returncode == 0, done.stdout[-500:]


def test_unit_asks_for_notify_and_watchdog_and_stops_at_a_refused_config() -> None:
    lines = UNIT.read_text().splitlines()
    assert {"Type=notify", "WatchdogSec=30", "RestartPreventExitStatus=2"} <= set(lines)


def test_default_config_is_one_the_agent_takes() -> None:
    parsed = config.load(ROOT / "systemd" / "agent.toml")
    assert parsed.mqtt.broker == "embedded"
    assert parsed.agent.unsigned_bundles == "refuse"
    assert len(parsed.agent.trusted_keys) == 1
    assert str(parsed.status_file) == "/run/linegate/status.json"
    assert parsed.health.metrics_port == 0
    assert f"--config /etc/linegate/{'agent.toml'}" in UNIT.read_text()


def test_sysusers_file_is_understood(tmp_path: Path) -> None:
    program = shutil.which("systemd-sysusers")
    assert program, "systemd-sysusers is missing: scripts/system-packages.sh test installs it"
    (tmp_path / "etc").mkdir()
    command = [program, f"--root={tmp_path}", str(ROOT / "systemd" / "linegate.sysusers.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "linegate" in (tmp_path / "etc" / "passwd").read_text()


def test_tmpfiles_are_understood(tmp_path: Path) -> None:
    program = shutil.which("systemd-tmpfiles")
    assert program, "systemd-tmpfiles is missing: scripts/system-packages.sh test installs it"
    (tmp_path / "etc").mkdir()
    if os.geteuid() == 0:  # who creates the folders must be able to give them away
        (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/:\nlinegate:x:990:990::/:\n")
        (tmp_path / "etc" / "group").write_text("root:x:0:\nlinegate:x:990:\n")
        file = ROOT / "systemd" / "linegate.tmpfiles.conf"
        command = [program, "--create", f"--root={tmp_path}", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        state = (tmp_path / "var/lib/linegate").stat()
        assert (state.st_uid, state.st_mode & 0o7777) == (990, 0o750)
        assert (tmp_path / "etc/linegate/credentials").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_posix_shell(script: Path) -> None:
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
