"""The systemd unit and the default configuration, as systemd and the agent read them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import config

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "systemd" / "linegate-agent.service"

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
    done = _analyze("security", "--offline=true", "--threshold=20", unit)
    assert done.returncode == 0, done.stdout[-500:]


def test_unit_asks_for_notify_and_watchdog_and_stops_at_a_refused_config() -> None:
    lines = UNIT.read_text().splitlines()
    assert {"Type=notify", "WatchdogSec=20", "RestartPreventExitStatus=2"} <= set(lines)


def test_default_config_is_one_the_agent_takes() -> None:
    parsed = config.load(ROOT / "systemd" / "agent.toml")
    assert parsed.mqtt.broker == "embedded"
    assert f"--config /etc/linegate/{'agent.toml'}" in UNIT.read_text()


def test_sysusers_file_is_understood(tmp_path: Path) -> None:
    program = shutil.which("systemd-sysusers")
    assert program, "systemd-sysusers is missing: scripts/system-packages.sh test installs it"
    (tmp_path / "etc").mkdir()
    command = [program, f"--root={tmp_path}", str(ROOT / "systemd" / "linegate.sysusers.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "linegate" in (tmp_path / "etc" / "passwd").read_text()
