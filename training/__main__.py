"""edge-train: train the gate or the segmenter."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

_EXAMPLE = """\
example (the committed reference models, about half an hour each on 2 cores):
  edge-train gate --simulated --width 0.125 --out gate.keras
  edge-train segmenter --simulated --width 0.5 --out segmenter.keras
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-train",
        description="Train one of the two networks on the simulated strip.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=("gate", "segmenter"))
    parser.add_argument(
        "--simulated", action="store_true", required=True, help="train on the simulated strip"
    )
    parser.add_argument("--out", type=Path, required=True, help="the .keras file to write")
    parser.add_argument("--width", type=float, default=1.0, help="channel factor (default 1.0)")
    parser.add_argument("--strips", type=int, default=64, help="training strips (default 64)")
    parser.add_argument("--frames-per-strip", type=int, default=100, help="(default 100)")
    parser.add_argument("--epochs", type=int, default=18, help="(default 18)")
    parser.add_argument("--batch", type=int, default=32, help="images a step (default 32)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak (default 0.002)")
    parser.add_argument("--seed", type=int, default=0, help="strips, weights, order (default 0)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.out.suffix != ".keras":
        print(f"--out: {args.out} must end in .keras", file=sys.stderr)
        return 2
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from training.fit import Recipe, fit  # tensorflow takes seconds: not for --help

    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"--out: {args.out}: {error.strerror}; give a path to write", file=sys.stderr)
        return 2
    names = [n for n in Recipe.__slots__ if n != "stage"]
    figures = fit(Recipe(stage=args.stage, **{n: getattr(args, n) for n in names}), args.out)
    if args.json:
        print(json.dumps(figures))
    else:
        print(f"{args.out}: {figures['parameters']:,} parameters, {figures['validation']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
