"""Commands `simulate`, `broker` and `schema`: tools for line engineers and integrators."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from edge_agent.cli.common import Commands, add, count, port, write
from edge_agent.cli.kit import json_option


def register(commands: Commands) -> None:
    """Add the commands `simulate`, `broker` and `schema`."""
    text = "write the simulated strip as images and masks"
    simulate = add(commands, "simulate", text, "simulate --out frames", _simulate)
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR")
    simulate.add_argument("--seed", type=int, default=0)
    simulate.add_argument(
        "--strips", type=count, default=1, metavar="N", help="spread over N seeds from --seed on"
    )
    simulate.add_argument("--frames", type=count, default=100, metavar="N")
    simulate.add_argument("--width-px", type=int, default=1600)
    simulate.add_argument("--height-px", type=int, default=256)
    json_option(simulate)
    text = "run the embedded broker by itself, on loopback"
    broker = add(commands, "broker", text, "broker --port 1883", _broker)
    broker.add_argument("--port", type=port, default=1883)
    broker.set_defaults(until_interrupted=True)
    text = "print or write the JSON Schemas of the messages"
    schema = add(commands, "schema", text, "schema --out DIR", _schema)
    schema.add_argument("--out", type=Path, metavar="DIR")
    schema.add_argument(
        "--asyncapi", action="store_true", help="topics and messages in one AsyncAPI document"
    )


def _simulate(args: argparse.Namespace) -> None:
    from edge_agent.config import camera as config_camera
    from edge_agent.config import config as configs
    from edge_agent.simulation.dataset import write

    camera = {"kind": "simulated", "realtime": False, "seed": args.seed}
    camera |= {"width_px": args.width_px, "height_px": args.height_px}
    tree = {"agent": {"bundle": ""}, "camera": camera, "mqtt": {"broker": "embedded"}}
    config = configs.parse(tree, "edge-agent simulate").camera
    if not isinstance(config, config_camera.SimulatedCamera):  # impossible: kind is set above
        raise TypeError(config)
    for done in write(config, args.strips, args.frames, args.out):
        if sys.stderr.isatty():
            print(f"\r{done}/{args.frames} frames", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(json.dumps({"frames": args.frames}) if args.json else f"{args.frames} frames: {args.out}")


def _broker(args: argparse.Namespace) -> None:
    from edge_agent.delivery.embedded_broker import EmbeddedBroker

    broker = EmbeddedBroker(args.port)
    print(f"broker on 127.0.0.1:{args.port}, Ctrl-C ends it", file=sys.stderr, flush=True)
    try:
        while True:
            time.sleep(3600)
    finally:
        broker.close()


def _schema(args: argparse.Namespace) -> None:
    from edge_agent.messages.schema import schemas

    if args.asyncapi:
        from edge_agent.messages import asyncapi

        text = asyncapi.as_yaml()
        if args.out:
            write(args.out / "asyncapi.yaml", text)
        else:
            print(text, end="")
        return
    for name, schema in schemas().items():
        text = json.dumps(schema, indent=1, sort_keys=True) + "\n"
        if args.out:
            write(args.out / f"{name}.schema.json", text)
        else:
            print(text, end="")
