"""edge-train: inspect and split the data, train the two networks, evaluate them."""

from __future__ import annotations

import argparse
import sys

from edge_agent.cli import kit
from training.cli.data import add_inspect, add_split
from training.cli.evaluate import add_evaluate
from training.cli.train import add_train
from workshop import terminal

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
    parser = kit.parser("edge-train", "Train and evaluate the gate and the segmenter.", _EXAMPLE)
    commands = parser.add_subparsers(dest="command", required=True)
    add_inspect(commands)
    add_split(commands)
    add_train(commands, "gate")
    add_train(commands, "segmenter")
    add_evaluate(commands)
    for command in commands.choices.values():
        terminal.verbose_option(command)
    return parser


def _run(args: argparse.Namespace) -> int:
    with terminal.quiet("edge-train", verbose=args.verbose):
        return int(args.run(args))


def main(argv: list[str] | None = None) -> int:
    """Run edge-train on `argv` or the command line; return the exit code."""
    args = _parser().parse_args(argv)
    hint = "; --resume goes on after the last epoch" if hasattr(args, "resume") else ""
    return kit.run("edge-train", lambda: _run(args), hint=hint)


if __name__ == "__main__":
    sys.exit(main())
