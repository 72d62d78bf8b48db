"""edge-agent: inspect the strip, and the tools a line engineer needs beside it."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from pathlib import Path

from edge_agent.errors import EdgeError
from edge_agent.version import VERSION

_EXAMPLES = """\
examples:
  edge-agent run --config line.toml
  edge-agent run --config line.toml --set camera.path=frames --frames 500 --summary run.json
  edge-agent check --config line.toml
  edge-agent watch --broker mqtt://127.0.0.1:1883
  edge-agent simulate --seed 7 --strips 5 --frames 100 --out frames
  edge-agent broker --port 1883
  edge-agent schema --out docs/schema

exit codes: 0 done, 1 failed while running, 2 refused at the start
"""


class _Started(Exception):
    """Carries an EdgeError raised after the start, so that the exit code is 1."""


def _run(args: argparse.Namespace) -> None:
    from edge_agent import config as configs
    from edge_agent.agent import Agent

    agent = Agent(configs.load(args.config, tuple(args.set)), args.frames)
    try:
        summary = agent.run()
        if args.summary:
            _write(args.summary, json.dumps(summary, indent=1) + "\n")
    except EdgeError as error:
        raise _Started(str(error)) from None
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
    from edge_agent import config as configs
    from edge_agent.agent import prepare_stages

    stages = prepare_stages(configs.load(args.config, tuple(args.set)))
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


def _watch(args: argparse.Namespace) -> None:
    from edge_agent import config as configs
    from edge_agent.watch import Heard, line, listen

    section = {"broker": args.broker, "root": args.root, "username": args.username}
    section |= {"password_file": args.password_file, "ca_file": args.ca_file}
    tree = {"agent": {"bundle": ""}, "camera": {"kind": "folder", "path": ""}, "mqtt": section}
    config = configs.parse(tree, "edge-agent watch").mqtt

    def subscribed() -> None:
        print(f"subscribed to {config.root} on {config.broker}", file=sys.stderr, flush=True)

    if args.record:
        _append(args.record, b"")  # refused now, not at the first alert
    count = 0
    for heard in listen(config, subscribed):
        if not isinstance(heard, Heard):
            print(f"not understood: {heard}", file=sys.stderr, flush=True)
            continue
        print(heard.payload.decode() if args.json else line(heard.event), flush=True)
        if args.record:
            _append(args.record, heard.payload + b"\n")
        count += 1
        if count == args.count:
            return


def _simulate(args: argparse.Namespace) -> None:
    from edge_agent import config as configs
    from edge_agent.simulate import write

    camera = {"kind": "simulated", "realtime": False, "seed": args.seed}
    camera |= {"width_px": args.width_px, "height_px": args.height_px}
    tree = {"agent": {"bundle": ""}, "camera": camera, "mqtt": {"broker": "embedded"}}
    config = configs.parse(tree, "edge-agent simulate").camera
    if not isinstance(config, configs.SimulatedCamera):  # cannot be: kind is given above
        raise TypeError(config)
    for done in write(config, args.strips, args.frames, args.out):
        if sys.stderr.isatty():
            print(f"\r{done}/{args.frames} frames", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(json.dumps({"frames": args.frames}) if args.json else f"{args.frames} frames: {args.out}")


def _broker(args: argparse.Namespace) -> None:
    from edge_agent.broker import EmbeddedBroker

    broker = EmbeddedBroker(args.port)
    print(f"broker on 127.0.0.1:{args.port}, Ctrl-C ends it", file=sys.stderr, flush=True)
    try:
        while True:
            time.sleep(3600)
    finally:
        broker.close()


def _schema(args: argparse.Namespace) -> None:
    from edge_agent.events import schemas

    for name, schema in schemas().items():
        text = json.dumps(schema, indent=1, sort_keys=True) + "\n"
        if args.out:
            _write(args.out / f"{name}.schema.json", text)
        else:
            print(text, end="")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}; give a path that can be written") from None


def _append(path: Path, data: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}; give a path that can be written") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent",
        description="Inspect a strip: camera, gate, segmenter, events over MQTT.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"linegate {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=text, epilog=f"example: edge-agent {example}"
        )

    run = add("run", "inspect until the camera ends or a signal comes", "run --config line.toml")
    run.set_defaults(act=_run)
    run.add_argument("--frames", type=_count, metavar="N", help="stop after N frames")
    run.add_argument("--summary", type=Path, metavar="FILE", help="write counts and percentiles")
    check = add(
        "check", "verify config and bundle, say what would run", "check --config line.toml --json"
    )
    check.set_defaults(act=_check)
    for one in (run, check):
        one.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML")
        one.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key"
        )
    watch = add("watch", "print alerts as they come", "watch --broker mqtt://127.0.0.1:1883")
    watch.set_defaults(act=_watch)
    watch.add_argument("--broker", default="mqtt://127.0.0.1:1883", help="(default %(default)s)")
    watch.add_argument("--root", default="linegate", help="first topic level")
    watch.add_argument("--username", default="")
    watch.add_argument("--password-file", default="", help="file that holds the password")
    watch.add_argument("--ca-file", default="", help="CA certificates for mqtts")
    watch.add_argument("--count", type=_count, metavar="N", help="end after N messages")
    watch.add_argument("--record", type=Path, metavar="FILE", help="append each message's JSON")
    simulate = add(
        "simulate", "write the simulated strip as images and masks", "simulate --out frames"
    )
    simulate.set_defaults(act=_simulate)
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR")
    simulate.add_argument("--seed", type=int, default=0)
    simulate.add_argument(
        "--strips", type=_count, default=1, metavar="N", help="spread over N seeds from --seed on"
    )
    simulate.add_argument("--frames", type=_count, default=100, metavar="N")
    simulate.add_argument("--width-px", type=int, default=1600)
    simulate.add_argument("--height-px", type=int, default=256)
    broker = add("broker", "run the embedded broker by itself, on loopback", "broker --port 1883")
    broker.set_defaults(act=_broker)
    broker.add_argument("--port", type=_port, default=1883)
    schema = add("schema", "print or write the JSON Schemas of the messages", "schema --out DIR")
    schema.set_defaults(act=_schema)
    schema.add_argument("--out", type=Path, metavar="DIR")
    for one in (run, check, watch, simulate):
        one.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    if args.act in (_watch, _broker):
        # Both words end them, also where a script's background job was started deaf to SIGINT.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        args.act(args)
    except _Started as error:
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
