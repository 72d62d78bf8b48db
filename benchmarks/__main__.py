"""edge-bench: latency of every artifact, accuracy of the whole line, rate of the delivery."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.cli import kit
from edge_agent.errors import EdgeError
from workshop import progress, terminal

_EXAMPLES = """\
examples:
  edge-bench latency bundle --samples 200 --json latency.json
  edge-bench latency bundle --provider CPUExecutionProvider --provider openvino
  edge-bench accuracy bundle --simulated --frames 500
  edge-bench networks --out full
  edge-bench delivery --events 30000 --backlog 1000000
"""
_PRINTED = "-"


def _parser() -> argparse.ArgumentParser:
    parser = kit.parser(
        "edge-bench", "Measure a bundle, and the delivery, on this machine.", _EXAMPLES
    )
    commands = parser.add_subparsers(dest="command", required=True)
    latency = commands.add_parser(
        "latency",
        help="p50, p95, p99 of every artifact",
        epilog="example: edge-bench latency bundle --samples 200",
    )
    latency.set_defaults(act=_latency)
    latency.add_argument("--samples", type=int, default=200, metavar="N", help="(default 200)")
    latency.add_argument("--warm-up", type=int, default=20, metavar="N", help="(default 20)")
    latency.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        help="of onnxruntime, or openvino; again for more (default CPUExecutionProvider)",
    )
    accuracy = commands.add_parser(
        "accuracy",
        help="recall, false alerts, class, Dice",
        epilog="example: edge-bench accuracy bundle --simulated --frames 500",
    )
    accuracy.set_defaults(act=_accuracy)
    accuracy.add_argument(
        "--simulated", action="store_true", required=True, help="on strips never used before"
    )
    accuracy.add_argument("--frames", type=int, default=500, metavar="N", help="(default 500)")
    accuracy.add_argument("--first-seed", type=int, default=9000, help="(default 9000)")
    accuracy.add_argument(
        "--artifacts",
        default="onnx-float32,onnx-int8,tflite-float32,tflite-int8",
        help="labels, comma between (default all four)",
    )
    networks = commands.add_parser(
        "networks",
        help="the two full-size networks with random weights, to export and time",
        description="Write gate.keras and segmenter.keras: the two networks with random weights "
        "and batch norms settled on simulated frames.",
        epilog="example: edge-bench networks --out full",
    )
    networks.set_defaults(act=_networks)
    networks.add_argument("--out", type=Path, required=True, metavar="DIR")
    networks.add_argument("--width", type=float, default=1.0, help="of the networks (default 1)")
    kit.json_option(networks, "print the paths as JSON")
    for one in (latency, accuracy):
        one.add_argument("bundle", type=Path, metavar="BUNDLE")
        one.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        _json_option(one)
    delivery = commands.add_parser(
        "delivery",
        help="events a second through the spool to a mosquitto of its own, and memory",
        epilog="example: edge-bench delivery --events 30000 --backlog 1000000",
    )
    delivery.set_defaults(act=_delivery)
    delivery.add_argument("--events", type=int, default=30_000, metavar="N", help="(default 30000)")
    delivery.add_argument(
        "--backlog", type=int, default=0, metavar="N", help="and N that were spooled before"
    )
    delivery.add_argument("--window", type=int, default=100, metavar="N", help="(default 100)")
    delivery.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the spool lies (default: a temporary one)"
    )
    _json_option(delivery)
    for command in commands.choices.values():
        terminal.verbose_option(command)
    return parser


def _json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --json; with a file the report is written there and the table printed."""
    parser.add_argument(
        "--json",
        nargs="?",
        const=_PRINTED,
        metavar="FILE",
        help="print the report as JSON; with FILE write it there, and print the table",
    )


def _latency(args: argparse.Namespace) -> None:
    from benchmarks import latency, machine
    from edge_agent.bundle import reader

    _at_least(("--samples", args.samples, 1), ("--warm-up", args.warm_up, 0))
    bundle = reader.load(args.bundle)
    with progress.counted(2 * (args.samples + args.warm_up), "timing", "round") as bar:
        timings, left_out = latency.measure(
            bundle,
            samples=args.samples,
            warm_up=args.warm_up,
            threads=args.threads,
            progress=bar.update,
            providers=args.provider or ["CPUExecutionProvider"],
        )
    where = machine.describe()
    report = {
        "machine": where,
        "threads": args.threads,
        "warm_up": args.warm_up,
        "bundle_sha256": bundle.sha256,
        "timings": [asdict(t) for t in timings],
        "not_timed": [asdict(n) for n in left_out],
    }
    if _reported(args.json, report):
        return
    print(f"{where['cpu']}, {args.threads} threads, {' '.join(where['cpu_flags'])}")
    print(latency.table(timings))
    for one in left_out:
        print(f"not timed: {one.stage} {one.artifact}: {one.reason}")


def _accuracy(args: argparse.Namespace) -> None:
    from benchmarks import accuracy, machine
    from edge_agent.bundle import reader

    _at_least(("--frames", args.frames, 1), ("--first-seed", args.first_seed, 0))
    bundle = reader.load(args.bundle)
    with progress.counted(args.frames, "judging", "frame") as bar:
        results, baseline = accuracy.judge(
            bundle,
            args.artifacts.split(","),
            first_seed=args.first_seed,
            frames=args.frames,
            threads=args.threads,
            progress=bar.update,
        )
    report = {
        "machine": machine.describe(),
        "bundle_sha256": bundle.sha256,
        "frames": args.frames,
        "first_seed": args.first_seed,
        "results": [asdict(r) for r in results],
        "baseline": asdict(baseline),
    }
    if _reported(args.json, report):
        return
    print(accuracy.table(results, baseline))


def _networks(args: argparse.Namespace) -> None:
    from benchmarks import networks

    if not 0.05 <= args.width <= 4:
        raise EdgeError(f"--width: {args.width}: give 0.05 to 4; 1 is full size")
    written = []
    for path in networks.write(args.out, args.width):
        print(path, file=sys.stderr)
        written.append(path)
    if args.json:
        print(json.dumps(written))


def _delivery(args: argparse.Namespace) -> None:
    from benchmarks import delivery, machine

    checks = (("--events", args.events, 1), ("--backlog", args.backlog, 0))
    _at_least(*checks, ("--window", args.window, 1))
    runs: dict[str, delivery.DeliveryRun] = {}
    with tempfile.TemporaryDirectory(prefix="edge-bench-", dir=args.folder) as folder:
        for name, measure, count in (
            ("live", delivery.live, args.events),
            ("backlog", delivery.backlog, args.backlog),
        ):
            if count:
                with progress.counted(count, name, "event") as bar:
                    runs[name] = measure(
                        Path(folder) / name, events=count, window=args.window, progress=bar.update
                    )
    where = machine.describe()
    if _reported(args.json, {"machine": where, "runs": delivery.as_json(runs)}):
        return
    print(f"{where['cpu']}, {len(os.sched_getaffinity(0))} cores")
    print(delivery.table(runs))


def _at_least(*checks: tuple[str, int, int]) -> None:
    for name, value, least in checks:
        if value < least:
            raise EdgeError(f"{name}: {value} is too small; give at least {least}")


def _reported(to: str | None, report: dict[str, Any]) -> bool:
    """Print or store the report; return True if it was printed in place of the table."""
    text = json.dumps(report, indent=1)
    if to == _PRINTED:
        print(text)
    elif to is not None:
        try:
            Path(to).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise EdgeError(f"--json: {to}: {error.strerror}; give a path to write") from None
    return to == _PRINTED


def _run(args: argparse.Namespace) -> None:
    with terminal.quiet("edge-bench", verbose=args.verbose):
        args.act(args)


def main(argv: list[str] | None = None) -> int:
    """Run edge-bench on `argv` or the command line; return the exit code."""
    args = _parser().parse_args(argv)
    return kit.run("edge-bench", lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
