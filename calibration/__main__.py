"""edge-calibrate: set the gate's decision thresholds from labelled frames."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from edge_agent.cli import kit
from workshop import progress, terminal

_EXAMPLE = """\
examples:
  edge-calibrate gate --bundle bundle --data labelled --miss-rate 0.005
  edge-calibrate gate --bundle bundle            (no labels: p = 0.01, as in the seed)

--data is a folder with images/ and labels.csv (columns file, class_id, optional defect_pixels).
"""


def _parser() -> argparse.ArgumentParser:
    parser = kit.parser(
        "edge-calibrate",
        "Set the gate's threshold in a bundle, for each artifact by itself.",
        _EXAMPLE,
    )
    parser.add_argument("what", choices=("gate",))
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, metavar="DIR", help="labelled frames")
    parser.add_argument(
        "--miss-rate", type=float, default=0.005, help="largest allowed on --data (default 0.005)"
    )
    parser.add_argument(
        "--min-defect-px",
        type=int,
        default=0,
        metavar="PX",
        help="leave out frames with a smaller defect (default 0: none)",
    )
    kit.json_option(parser, "print the thresholds as JSON")
    terminal.verbose_option(parser)
    return parser


def _run(args: argparse.Namespace) -> None:
    from edge_agent.bundle.signature import SIGNATURE

    signed = (args.bundle / SIGNATURE).exists()
    with terminal.quiet("edge-calibrate", verbose=args.verbose):
        _calibrate(args)
    if signed:
        print(
            f"edge-calibrate: {SIGNATURE} is removed, since bundle.json has changed; sign it "
            f"again: edge-export sign {args.bundle} --key KEY",
            file=sys.stderr,
        )


def _calibrate(args: argparse.Namespace) -> None:
    from calibration import gate
    from edge_agent.bundle import reader
    from workshop.datasets import labelled_frames
    from workshop.errors import WorkshopError

    if not 0 <= args.miss_rate < 1:
        raise WorkshopError(f"--miss-rate: {args.miss_rate}: give a share from 0 to below 1")
    bundle = reader.load(args.bundle)
    if args.data is None:
        gate.reset(bundle)
        print(json.dumps([]) if args.json else f"{args.bundle}: p = 0.01 for every gate artifact")
        return
    frames = labelled_frames.read(args.data)
    with progress.counted(len(frames), "scoring", "frame") as bar:
        results = gate.calibrate(
            bundle,
            frames,
            miss_rate=args.miss_rate,
            min_defect_px=args.min_defect_px,
            threads=len(os.sched_getaffinity(0)),
            progress=lambda _: bar.update(),
        )
    if args.json:
        print(json.dumps([{f: getattr(r, f) for f in r.__slots__} for r in results]))
        return
    for r in results:
        print(
            f"{r.artifact:<15} threshold {r.threshold_logit:+.3f} (logit): missed {r.missed} of "
            f"{r.defective}, passed on {r.clean_passed_on} of {r.clean} clean"
        )


def main(argv: list[str] | None = None) -> int:
    """Run edge-calibrate on `argv` or the command line; return the exit code."""
    args = _parser().parse_args(argv)
    return kit.run("edge-calibrate", lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
