"""edge-agent: inspect the strip, and the tools a line engineer needs beside it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from edge_agent.cli import bundle, camera, inspect, spool, status, subscribe, tools, update
from edge_agent.cli.common import RunFailure
from edge_agent.errors import EdgeError
from edge_agent.version import VERSION

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

exit codes: 0 done, 1 failed while running, 2 refused at the start
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent",
        description="Inspect a strip: camera, gate, segmenter, events over MQTT.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"linegate {VERSION}")
    parser.set_defaults(until_interrupted=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for one in (inspect, status, bundle, update, camera, subscribe, spool, tools):
        one.register(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    if args.until_interrupted:
        # Both words end them, also where a script's background job was started deaf to SIGINT.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        args.act(args)
    except RunFailure as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return 1
    except EdgeError as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
