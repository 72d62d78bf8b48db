"""The commands about data: `edge-train inspect` and `edge-train split`.

What they need is imported when they run: `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

_INSPECT_EXAMPLE = """\
example:
  edge-train inspect DATA --split split.csv --out look
"""
_SPLIT_EXAMPLE = """\
example:
  edge-train split DATA --out split.csv --seed 0
"""
_LAYOUTS = "folder of a data set: images/ with masks/ or labels.csv, or train_images/ and train.csv"


def add_inspect(subparsers: Any) -> None:
    """`inspect DATA`: what is in the data, and what is wrong with it."""
    parser = subparsers.add_parser(
        "inspect",
        help="counts, sizes, defects, errors and near-duplicates of a data set",
        description="Look at every image of a data set: counts, sizes, defects, broken files and "
        "masks, and images that show the same thing.",
        epilog=_INSPECT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, metavar="DATA", help=_LAYOUTS)
    parser.add_argument(
        "--split", type=Path, metavar="FILE", help="a list to check for near-duplicates across it"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write plots as PNG to this folder")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_inspect)


def add_split(subparsers: Any) -> None:
    """`split DATA --out FILE`: the list of which image is for what."""
    parser = subparsers.add_parser(
        "split",
        help="share images out to training, validation and test",
        description="Share images out by class to training, validation and test, and write the "
        "list. Images that show the same thing come into one part.",
        epilog=_SPLIT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, metavar="DATA", help=_LAYOUTS)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the CSV file to write"
    )
    parser.add_argument(
        "--by",
        choices=("likeness", "image"),
        default="likeness",
        help="keep images that show the same thing in one part (default), or take each by itself",
    )
    parser.add_argument("--seed", type=_seed, default=0, help="of the shuffling (default 0)")
    parser.add_argument(
        "--fractions",
        type=_fractions,
        default=(0.6, 0.15, 0.25),
        metavar="A,B,C",
        help="shares of training, validation and test (default 0.6,0.15,0.25)",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.set_defaults(run=_split)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        message = f"{text!r} is not three numbers like 0.6,0.15,0.25"
        raise argparse.ArgumentTypeError(message) from None


def _inspect(args: argparse.Namespace) -> int:
    import msgspec

    from training.data_report import inspect
    from training.data_report.text import text
    from workshop import splits as split
    from workshop.datasets import open_dataset

    dataset = open_dataset(args.data, strict=False)
    splits = split.read(args.split) if args.split is not None else None
    if args.out is not None:
        _make_folder(args.out)
    report = inspect.inspect(dataset, splits, progress=True)
    print(msgspec.json.encode(report).decode() if args.json else text(report))
    if args.out is not None:
        from training.data_report.plots import plots

        for path in plots(dataset, report, args.out):
            print(path, file=sys.stderr if args.json else sys.stdout)
    return 0


def _split(args: argparse.Namespace) -> int:
    from training.data_report.text import part_table
    from workshop import splits as split
    from workshop.datasets import open_dataset
    from workshop.near_duplicates import groups

    split.check_fractions(args.fractions)
    dataset = open_dataset(args.data)
    _make_folder(args.out.parent)
    numbers = groups(dataset) if args.by == "likeness" else None
    made = split.split(dataset, fractions=args.fractions, seed=args.seed, groups=numbers)
    split.write(args.out, made)
    counts = split.count(made, dataset)
    group_count = None if numbers is None else int(numbers.max()) + 1
    if args.json:
        print(json.dumps({"out": str(args.out), "groups": group_count, "parts": counts}))
        return 0
    shown = "" if group_count is None else f" that show {group_count} things"
    print(f"{args.out}: {len(dataset.samples)} images{shown}")
    print("\n".join(part_table(counts)))
    return 0


def _make_folder(folder: Path) -> None:
    """Before the minutes of work, not after."""
    from workshop.errors import WorkshopError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkshopError(
            f"--out: {folder}: {error.strerror}; give a path that can be written"
        ) from None
