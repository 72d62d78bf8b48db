"""Command line of edge-agent: inspect the strip, and tools for the line engineer."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from edge_agent.cli import bundle, camera, inspect, kit, spool, status, subscribe, tools, update

_EXAMPLES = """\
examples:
  edge-agent run --config line.toml
  edge-agent run --config line.toml --set camera.path=frames --frames 500 --summary run.json
  edge-agent check --config line.toml
  edge-agent status --json
  edge-agent bundle verify bundle
  edge-agent camera list
  edge-agent camera test --config line.toml --seconds 60
  edge-agent update stage bundle-2 --config line.toml --wait 600
  edge-agent watch --broker mqtt://127.0.0.1:1883
  edge-agent tail --config line.toml --since 1h
  edge-agent spool status --config line.toml
  edge-agent simulate --seed 7 --strips 5 --frames 100 --out frames
  edge-agent broker --port 1883
  edge-agent schema --out docs/schema
"""


def _parser() -> argparse.ArgumentParser:
    parser = kit.parser(
        "edge-agent", "Inspect a strip: camera, gate, segmenter, events over MQTT.", _EXAMPLES
    )
    parser.set_defaults(until_interrupted=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for one in (inspect, status, bundle, update, camera, subscribe, spool, tools):
        one.register(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    if args.until_interrupted:
        # Both signals end them: a shell starts background jobs of a script with SIGINT ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    # Most commands are ended by Ctrl-C, so it is not an error.
    return kit.run("edge-agent", lambda: args.act(args), endless=True)


if __name__ == "__main__":
    sys.exit(main())
