"""Command `bundle verify`: check a bundle on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from edge_agent.cli.common import Commands, add, count, group
from edge_agent.cli.kit import RunFailure, json_option


def register(commands: Commands) -> None:
    """Add the command `bundle`."""
    text = "look at a bundle on this machine"
    acts = group(commands, "bundle", text, "bundle verify bundle")
    verify = add(
        acts,
        "verify",
        "load, run, compare and time every artifact here; say which one the agent would run",
        "bundle verify bundle --json",
        _verify,
        more=". Exit codes: 0 both stages can run here, 1 one cannot, 2 no bundle.",
    )
    verify.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder or packed")
    verify.add_argument("--runs", type=count, default=30, metavar="N", help="timed (default 30)")
    verify.add_argument("--threads", type=count, metavar="N", help="per network (default: all)")
    verify.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        help="of onnxruntime, or openvino; again for more (default CPUExecutionProvider)",
    )
    json_option(verify)


def _verify(args: argparse.Namespace) -> None:
    import msgspec

    from edge_agent.bundle.archive import opened
    from edge_agent.bundle.reader import load
    from edge_agent.inspection.artifact_check import table, verify

    def trying(what: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{what}", end="\r", file=sys.stderr, flush=True)

    with opened(args.bundle) as folder:
        found = verify(
            load(folder),
            threads=args.threads or len(os.sched_getaffinity(0)),
            runs=args.runs,
            providers=args.provider or ["CPUExecutionProvider"],
            trying=trying,
        )
    # msgspec writes a NaN or infinite difference as null, because JSON has neither.
    print(msgspec.json.encode(found).decode() if args.json else table(found))
    if not found.fit:
        raise RunFailure(f"{args.bundle}: a stage has no artifact that can be used here")
