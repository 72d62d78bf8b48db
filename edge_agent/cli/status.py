"""Command `status`: status of the agent on this machine."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import msgspec

from edge_agent.cli.common import Commands, add
from edge_agent.cli.kit import RunFailure, json_option
from edge_agent.supervision.status_file import StatusAnswer, ask

_CONFIG = Path("/etc/linegate/agent.toml")


def register(commands: Commands) -> None:
    """Add the command `status`."""
    text = "say whether the agent runs and is well"
    more = ". Exit code 0: running and well; 1: not running, or something needs a look."
    one = add(commands, "status", text, "status --json", _status, more=more)
    one.add_argument(
        "--config", type=Path, default=_CONFIG, metavar="FILE", help=f"TOML, default {_CONFIG}"
    )
    one.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key"
    )
    json_option(one)


def _status(args: argparse.Namespace) -> None:
    from edge_agent.config import config as configs

    config = configs.load(args.config, tuple(args.set))
    answer = ask(config.status_file, time.monotonic())
    if args.json:
        print(msgspec.json.encode(answer).decode())
    else:
        print(_in_words(answer))
    if not answer.well:
        raise RunFailure("; ".join(answer.troubles))


def _in_words(answer: StatusAnswer) -> str:
    status = answer.status
    if not answer.running or status is None:
        return "not running"
    health, bundle = status.health, status.bundle
    gaps = ", ".join(f"{n} {reason}" for reason, n in health.gaps.items()) or "none"
    stages = ", ".join(f"{stage} {age_s:.1f} s ago" for stage, age_s in status.stages.items())
    connected = "connected" if status.broker_connected else "not connected"
    return "\n".join(
        (
            f"{'well' if answer.well else 'not well'}: {status.agent}, process "
            f"{status.process_id}, up {health.uptime_s:.0f} s, linegate {status.agent_version}",
            f"bundle   {bundle.name} version {bundle.version}, {bundle.gate}, {bundle.segmenter}",
            f"frames   {health.frames_inspected} of {health.frames_captured} inspected, "
            f"{health.frames_defective} defective, gaps: {gaps}",
            f"broker   {connected}, {health.messages_pending} messages wait, "
            f"spool in {'memory' if health.spool == 'memory' else 'a file'}",
            f"stages   {stages}",
        )
    )
