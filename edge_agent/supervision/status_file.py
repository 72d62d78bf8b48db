"""Status file of a running agent, read by `edge-agent status` and the metrics.

A file, not a socket: it can be read while the agent hangs, and no reader blocks the agent. Process
id and start time show if its writer still runs, so a file left by a kill is detected.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent import files
from edge_agent.messages.events import BundleRef
from edge_agent.messages.health import HealthDocument

_MAX_BYTES = 1 << 20


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Status of a running agent, with its health document.

    `stages` holds the seconds since each stage last advanced, `stuck` the stages that do not.
    `until_monotonic_s` is the time by which the next status is due, with a margin.
    """

    schema_version: Literal[1] = 1
    process_id: int
    process_start: int
    agent: str
    site: str
    line: str
    agent_version: str
    bundle: BundleRef
    written_utc: str
    until_monotonic_s: float
    stages: dict[str, float]
    stuck: tuple[str, ...]
    publisher_restarts: int
    broker_connected: bool
    health: HealthDocument


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Result of reading the status file; `well` means running and without troubles.

    Each trouble is one line that names the fix.
    """

    running: bool
    well: bool
    troubles: tuple[str, ...]
    status: AgentStatus | None


def write(path: Path, status: AgentStatus) -> None:
    """Replace the file as a whole. Raises OSError."""
    # Not durable: it has no use after a power cut, and a sync each time wears a flash card.
    with files.replacing(path, durable=False) as new:
        new.write_bytes(msgspec.json.encode(status))


def remove(path: Path) -> None:
    """Remove the file; ignore errors."""
    with contextlib.suppress(OSError):
        path.unlink()


def ask(path: Path, now_monotonic_s: float) -> StatusAnswer:
    """Read the status file and check it against the running process and the clock."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        status = msgspec.json.decode(path.read_bytes(), type=AgentStatus)
    except FileNotFoundError:
        return _down(f"not running: there is no {path}", None)
    except OSError as error:
        return _down(f"{path}: {error.strerror}; ask as root, or as the agent's user", None)
    except ValueError as error:  # base of msgspec's errors
        return _down(f"{path}: not a status file: {error}", None)
    if process_start(status.process_id) != status.process_start:
        return _down(f"not running: process {status.process_id} ended without a word", status)
    troubles = tuple(_troubles(status, now_monotonic_s))
    return StatusAnswer(running=True, well=not troubles, troubles=troubles, status=status)


def process_start(process_id: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; None if there is none.

    The start time distinguishes the process from a later one with the same id.
    """
    try:
        text = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace")
        # The name, in brackets, may contain spaces and brackets: count field 22 from its end.
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def here() -> tuple[int, int]:
    """Return id and start time of this process."""
    return os.getpid(), process_start(os.getpid()) or 0


def _down(why: str, status: AgentStatus | None) -> StatusAnswer:
    return StatusAnswer(running=False, well=False, troubles=(why,), status=status)


def _troubles(status: AgentStatus, now_monotonic_s: float) -> list[str]:
    found = []
    late_s = now_monotonic_s - status.until_monotonic_s
    if late_s > 0:
        found.append(
            f"silent: no status for {late_s:.0f} s longer than it may take; see journalctl"
        )
    found += [
        f"{stage} stands still for {status.stages[stage]:.0f} s; its stack is in the journal"
        for stage in status.stuck
        if stage in status.stages
    ]
    if not status.broker_connected:
        waiting = status.health.messages_pending
        found.append(f"broker: not connected, {waiting} messages wait; see mqtt.broker")
    camera = status.health.camera
    if camera.state != "streaming":
        found.append(f"camera: {camera.state}, {camera.reason}; see the state document, journalctl")
    found += status.health.alarms
    if status.health.spool != "disk":
        found.append("spool: in memory, a restart loses what waits; see the disk of state_dir")
    return found
