"""Commands `edge-train inspect` and `edge-train split`.

Heavy imports are inside the functions, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

_INSPECT_EXAMPLE = """\
example:
  edge-train inspect DATA --split split.csv --out plots
"""
_SPLIT_EXAMPLE = """\
example:
  edge-train split DATA --out split.csv --seed 0
"""
_LAYOUTS = "folder of a data set: images/ with masks/ or labels.csv, or train_images/ and train.csv"


def add_inspect(subparsers: Any) -> None:
    """Add the command `inspect DATA`, which reports contents and errors of a data set."""
    parser = subparsers.add_parser(
        "inspect",
        help="counts, sizes, defects, errors and near-duplicates of a data set",
        description="Read every image of a data set and report counts, sizes, defects, damaged "
        "files and masks, and near-duplicates.",
        epilog=_INSPECT_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, metavar="DATA", help=_LAYOUTS)
    parser.add_argument(
        "--split",
        type=Path,
        metavar="FILE",
        help="check for near-duplicates across the parts of this split list",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write plots as PNG to this folder")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_inspect)


def add_split(subparsers: Any) -> None:
    """Add the command `split DATA --out FILE`, which assigns images to parts."""
    parser = subparsers.add_parser(
        "split",
        help="split a data set into training, validation and test",
        description="Split a data set by class into training, validation and test, and write the "
        "list. Near-duplicates stay in one part.",
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
        help="keep near-duplicates in one part (default), or assign each image by itself",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="seed of the random order (default 0)"
    )
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
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an integer of 0 or more; use for example 0"
        )
    return int(text)


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        message = f"{text!r} is not three numbers; use for example 0.6,0.15,0.25"
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
    shown = "" if group_count is None else f" in {group_count} groups (near-duplicates share one)"
    print(f"{args.out}: {len(dataset.samples)} images{shown}")
    print("\n".join(part_table(counts)))
    return 0


def _make_folder(folder: Path) -> None:
    """Create `folder` before the long computation; raise WorkshopError if that is impossible."""
    from workshop.errors import WorkshopError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkshopError(f"--out: {folder}: {error.strerror}; give a writable path") from None
