"""Commands `edge-train gate` and `edge-train segmenter`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from training.config import TrainConfig
    from workshop.datasets import DataSet
    from workshop.splits import Split

SIMULATED = "simulated"

_EXAMPLE = """\
example:
  edge-train {stage} --data data --split split.csv --config {stage}.toml --out runs/{stage}
  edge-train {stage} --data data --split split.csv --config {stage}.toml --out runs/{stage} --resume
Without --config, the defaults apply; --set changes one setting:
  edge-train {stage} --data simulated --set network.width=0.25 --out runs/{stage}
"""


def add_train(commands: Any, stage: str) -> None:
    """Add the command that trains `stage`, "gate" or "segmenter"."""
    parser = commands.add_parser(
        stage,
        help=f"train the {stage}",
        description=f"Train the {stage} and write a run folder with the .keras file to --out.",
        epilog=_EXAMPLE.format(stage=stage),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of labelled images, or the word: simulated",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; repeatable"
    )
    parser.add_argument(
        "--split",
        type=Path,
        metavar="FILE",
        help="split list from edge-train split; without it, a split from the seed",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run folder")
    parser.add_argument(
        "--backbone", metavar="NAME", help="none, imagenet or a headless .keras model"
    )
    parser.add_argument("--seed", type=int, help="seed of weights, image order and augmentation")
    parser.add_argument(
        "--resume", action="store_true", help="continue after the last complete epoch"
    )
    parser.add_argument(
        "--strategy",
        choices=("one", "mirrored", "multiworker"),
        default="one",
        help="tf.distribute: this device, all GPUs, or the workers of TF_CONFIG (default one)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=_train, stage=stage)


def _train(args: argparse.Namespace) -> int:
    from training.fit.fit import Job, fit  # importing tensorflow would delay --help

    config = _config(args)
    dataset, parts = _data(args, config)
    job = Job(
        stage=args.stage,
        dataset=dataset,
        split=parts,
        config=config,
        out=args.out,
        strategy=args.strategy,
        resume=args.resume,
    )
    figures = fit(job)
    if args.json:
        print(json.dumps(figures))
    elif "validation" in figures:
        values = ", ".join(f"{k} {v:.4f}" for k, v in figures["validation"].items())
        print(
            f"{args.out / args.stage}.keras: {figures['parameters']:,} parameters; "
            f"best of {figures['epochs']} epochs: {figures['best_epoch']} (validation: {values})"
        )
    else:
        print(f"worker {figures['worker']}: done", file=sys.stderr)
    return 0


def _config(args: argparse.Namespace) -> TrainConfig:
    from edge_agent.config import loader
    from training.config import TrainConfig

    overrides = list(args.set)
    if args.backbone is not None:
        overrides.append(f"network.backbone={json.dumps(args.backbone)}")
    if args.config is None:
        config = loader.override({}, TrainConfig, tuple(overrides), "--set")
    else:
        config = loader.load(args.config, TrainConfig, tuple(overrides))
    if args.seed is not None:
        tree = msgspec.to_builtins(config) | {"seed": args.seed}
        config = loader.parse(tree, TrainConfig, "--seed")
    return config


def _data(args: argparse.Namespace, config: TrainConfig) -> tuple[DataSet, Split]:
    from workshop import near_duplicates, splits
    from workshop.datasets import SimulatedDataSet, open_dataset
    from workshop.datasets.simulated import TRAIN_SEEDS, VALIDATION_SEEDS

    if str(args.data) == SIMULATED:
        first, data = config.seed % 100 * 10, config.data
        count = max(1, min(12, data.strips // 8))
        seeds = (TRAIN_SEEDS[first : first + data.strips], VALIDATION_SEEDS[first : first + count])
        strips = SimulatedDataSet([*seeds[0], *seeds[1]], data.frames_per_strip)
        names = [sorted(s.name for s in strips.samples if strips.seed(s) in part) for part in seeds]
        return strips, splits.Split(tuple(names[0]), tuple(names[1]), ())
    dataset = open_dataset(args.data, config.data.class_names or None)
    if args.split is not None:
        return dataset, splits.read(args.split)
    return dataset, splits.split(
        dataset,
        fractions=config.data.fractions,
        seed=config.seed,
        groups=near_duplicates.groups(dataset),
    )
