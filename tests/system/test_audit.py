"""scripts/audit.py: a finding fails, a database out of reach does not, nothing is glossed over."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "scripts" / "audit.py"
WELL = {"name": "numpy", "version": "1.26.4", "vulns": []}
HOLED = {
    "name": "paho-mqtt",
    "version": "2.2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.2.1"], "aliases": [], "description": ""}],
}
UNKNOWN = {"name": "amqtt", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "said", "code"),
    [
        ([WELL], "audit: 0 of 1 packages affected", 0),
        ([WELL, UNKNOWN], "audit: 0 of 1 packages affected, 1 could not be looked up", 0),
        (
            [WELL, HOLED],
            "paho-mqtt 2.2.0: PYSEC-1, fixed in 2.2.1\naudit: 1 of 2 packages affected",
            1,
        ),
        ([UNKNOWN], "audit: skipped, the index knows nothing of any of 1 packages", 0),
    ],
)
def test_verdict(audit: Any, packages: list[dict[str, Any]], said: str, code: int) -> None:
    assert audit.verdict({"dependencies": packages}) == (said, code)


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    return tmp_path / "pins.txt"


def _run(pins: Path) -> subprocess.CompletedProcess[str]:
    with socket.socket() as closed:  # bound and not listening: refused, whatever the network
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        environment = {**os.environ, "HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": ""}
        return subprocess.run(
            [sys.executable, str(SCRIPT), str(pins)],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
            env=environment,
        )


def test_a_database_out_of_reach_is_no_finding(pins: Path) -> None:
    # A version of its own, so that no answer to it lies in pip-audit's cache.
    pins.write_text("numpy==1.26.4.post77\n")
    done = _run(pins)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "audit: skipped, the database cannot be reached\n",
        "",
    )


def test_pins_that_cannot_be_read_are_a_fault(pins: Path) -> None:
    pins.write_text("numpy==not a version\n")
    done = _run(pins)
    assert done.returncode == 1
    assert done.stderr.startswith("audit: failed: ")
