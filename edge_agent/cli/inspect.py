"""Commands `run` and `check`: inspect the line, or verify that it can start."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge_agent.cli.common import Commands, add, config_options, count, write
from edge_agent.cli.kit import RunFailure, json_option
from edge_agent.errors import EdgeError


def register(commands: Commands) -> None:
    """Add the commands `run` and `check`."""
    text = "inspect until the camera ends or a signal comes"
    run = add(commands, "run", text, "run --config line.toml", _run)
    run.add_argument("--frames", type=count, metavar="N", help="stop after N frames")
    run.add_argument("--summary", type=Path, metavar="FILE", help="write counts and percentiles")
    text = "verify config and bundle, say what would run"
    check = add(commands, "check", text, "check --config line.toml --json", _check)
    for one in (run, check):
        config_options(one)
        one.add_argument(
            "--allow-older", action="store_true", help="a bundle older than one that ran here too"
        )
        json_option(one)


def _run(args: argparse.Namespace) -> None:
    from edge_agent.agent import Agent
    from edge_agent.config import config as configs

    config = configs.load(args.config, tuple(args.set))
    agent = Agent(config, args.frames, allow_older=args.allow_older)
    try:
        summary = agent.run()
        if args.summary:
            write(args.summary, json.dumps(summary, indent=1) + "\n")
    except EdgeError as error:
        raise RunFailure(str(error)) from None
    if args.json:
        print(json.dumps(summary))
        return
    gaps = ", ".join(f"{n} {reason}" for reason, n in summary["gaps"].items()) or "none"
    print(
        f"{summary['frames_inspected']} of {summary['frames_captured']} frames inspected "
        f"({summary['frames_per_second']:.1f}/s), {summary['frames_defective']} defective, "
        f"{summary['events_published']} events published, gaps: {gaps}"
    )


def _check(args: argparse.Namespace) -> None:
    from edge_agent.config import config as configs
    from edge_agent.inspection.models import prepare_stages
    from edge_agent.update.startup import to_run

    config = configs.load(args.config, tuple(args.set))
    folder, forced = to_run(config)
    stages = prepare_stages(config, allow_older=args.allow_older or forced, folder=folder)
    report = {
        name: {
            "artifact": choice.artifact.label,
            "runtime": choice.runtime.name,
            "run_ms": round(choice.run_ms, 3),
            "refused": {r.label: r.reason for r in choice.refused},
        }
        for name, choice in (("gate", stages.gate), ("segmenter", stages.segmenter))
    }
    if args.json:
        print(json.dumps(report))
        return
    for name, part in report.items():
        print(f"{name}: {part['artifact']} on {part['runtime']}, {part['run_ms']} ms")
        for label, reason in part["refused"].items():  # type: ignore[attr-defined]
            print(f"  not {label}: {reason}")
