"""Command `update`: replace the bundle of a running line, or roll back."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.common import Commands, add, config_options, count, group
from edge_agent.cli.kit import RunFailure, json_option

if TYPE_CHECKING:
    from edge_agent.config.config import Config
    from edge_agent.update.bundle_store import BundleStore
    from edge_agent.update.record import UpdateRecord

_POLL_S = 0.2


def register(commands: Commands) -> None:
    """Add the command `update`."""
    text = "another bundle for a line that runs, and the way back"
    acts = group(commands, "update", text, "update stage bundle --config line.toml")
    stage = add(
        acts,
        "stage",
        "verify a bundle and hand it to the agent, which tries it beside what runs",
        "update stage bundle --config line.toml --wait 600",
        _stage,
        more=". An agent that does not run takes it up at its next start. Exit codes: 0 staged, or "
        "committed with --wait; 1 not committed; 2 refused.",
    )
    stage.add_argument("bundle", type=Path, metavar="BUNDLE")
    stage.add_argument("--force", action="store_true", help="a version that does not rise too")
    stage.add_argument(
        "--wait", type=count, metavar="SECONDS", help="for the end of it, at most so long"
    )
    status = add(
        acts, "status", "say where an update stands", "update status --config line.toml", _status
    )
    rollback = add(
        acts,
        "rollback",
        "give up the update that is under way; if none is, go back to the bundle before",
        "update rollback --config line.toml",
        _rollback,
    )
    for one in (stage, status, rollback):
        config_options(one)
        json_option(one)


def _opened(args: argparse.Namespace) -> tuple[Config, BundleStore]:
    """Return the configuration and the bundle store of its agent."""
    from edge_agent.config import config as configs
    from edge_agent.update.bundle_store import BundleStore

    config = configs.load(args.config, tuple(args.set))
    return config, BundleStore(config.state_dir)


def _stage(args: argparse.Namespace) -> None:
    from edge_agent.update.staging import check_fit, stage

    config, slots = _opened(args)
    os.nice(10)  # a line may be running on this machine
    check_fit(config, args.bundle)
    record = stage(config, slots, args.bundle, force=args.force)
    candidate = record.candidate
    if args.wait:
        until = time.monotonic() + args.wait
        while record.candidate == candidate and time.monotonic() < until:
            _progress(str(record.phase))
            time.sleep(_POLL_S)
            record = slots.read()
        _progress("")
    _print(record, args.json)
    if args.wait and not (
        record.last and record.last.bundle == candidate and record.last.result == "committed"
    ):
        raise RunFailure(f"update: {candidate} is not committed: {_end(record)}")


def _status(args: argparse.Namespace) -> None:
    _, slots = _opened(args)
    _print(slots.read(), args.json)


def _rollback(args: argparse.Namespace) -> None:
    from edge_agent.messages import events
    from edge_agent.update import record as update

    _, slots = _opened(args)
    now = events.utc(time.time_ns())
    _print(slots.change(lambda record: update.returned(record, now)), args.json)


def _end(record: UpdateRecord) -> str:
    """Return the reason why an update is not committed."""
    if record.phase != "idle":
        return f"it is {record.phase}; see edge-agent update status"
    return record.last.reason or record.last.result if record.last else "no word of it"


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _print(record: UpdateRecord, as_json: bool) -> None:
    import msgspec

    if as_json:
        print(msgspec.json.encode(record).decode())
        return
    print(f"runs: {record.active or 'the bundle of the configuration'}")
    if record.previous:
        print(f"before it: {record.previous}")
    if record.candidate:
        print(f"{record.phase}: {record.candidate}, attempt {record.attempts}")
    if record.last:
        last = record.last
        why = f": {last.reason}" if last.reason else ""
        print(f"last: {last.bundle} {last.result} at {last.time}{why}")
        if last.report:
            report = last.report
            print(
                f"  {report.frames} frames: {report.changed_to_suspect} turned suspect, "
                f"{report.changed_to_clean} turned clean; defects {report.defects_running} to "
                f"{report.defects_candidate}, overlap {report.mask_iou:.2f}; errors "
                f"{report.errors_running} to {report.errors_candidate}; {report.slowdown:.2f} "
                "times as long"
            )
