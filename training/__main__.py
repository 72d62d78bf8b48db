"""edge-train: look at the data, split it, train the two networks, evaluate them."""

from __future__ import annotations

import argparse
import os
import sys

from edge_agent.errors import EdgeError
from training.cli.data import add_inspect, add_split
from training.cli.evaluate import add_evaluate
from training.cli.train import add_train
from training.errors import RunFailed

_EXAMPLE = """\
example, from images to two models and what they are worth:
  edge-train inspect data --out look
  edge-train split data --out split.csv
  edge-train gate --data data --split split.csv --config gate.toml --out runs/gate
  edge-train segmenter --data data --split split.csv --config segmenter.toml --out runs/segmenter
  edge-train evaluate --data data --gate runs/gate/gate.keras \\
      --segmenter runs/segmenter/segmenter.keras --out evaluation
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-train",
        description="Train and evaluate the gate and the segmenter.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add_inspect(commands)
    add_split(commands)
    add_train(commands, "gate")
    add_train(commands, "segmenter")
    add_evaluate(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return int(args.run(args))
    except EdgeError as error:
        print(f"edge-train: {error}", file=sys.stderr)
        return 1 if isinstance(error, RunFailed) else 2
    except KeyboardInterrupt:
        hint = "; --resume goes on after the last epoch" if hasattr(args, "resume") else ""
        print(f"edge-train: interrupted{hint}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
