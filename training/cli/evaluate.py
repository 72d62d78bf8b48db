"""Command `edge-train evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.bundle.manifest import RegionRule
from training.errors import RunError
from workshop.errors import WorkshopError

if TYPE_CHECKING:  # importing tensorflow and matplotlib would delay --help by seconds
    from training.evaluate.evaluate import Evaluator, UnseenImages
    from training.evaluate.evaluation import Evaluation, Problem
    from training.evaluate.predict import TrainedNetwork
    from workshop.datasets import DataSet
    from workshop.segmentation_metrics import ImageRecord

_EXAMPLE = """\
example:
  edge-train evaluate --data data --gate runs/gate/gate.keras \\
      --segmenter runs/segmenter/segmenter.keras --out evaluation
  edge-train evaluate --data data --gate gate.keras --split split.csv --part test --out evaluation

Writes evaluation.json, report.html and its plots as SVG to --out. By default, it evaluates the
images that neither model used in training or validation, according to the model cards; --part
selects others.
"""
_MAX_GALLERY = 100


def add_evaluate(commands: Any) -> None:
    """Add the command `evaluate`, which writes figures and a report of trained models."""
    parser = commands.add_parser(
        "evaluate",
        help="figures and a report of trained models on labelled images",
        description="Evaluate a gate, a segmenter, or both as on the line, on labelled images.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled images")
    parser.add_argument("--gate", type=Path, metavar="FILE", help="trained gate, .keras; optional")
    parser.add_argument(
        "--segmenter", type=Path, metavar="FILE", help="trained segmenter, .keras; optional"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder, created if missing"
    )
    parser.add_argument(
        "--part",
        choices=("unseen", "all", "train", "validation", "test"),
        default="unseen",
        help="images to evaluate; train, validation and test need --split (default unseen)",
    )
    parser.add_argument(
        "--split", type=Path, metavar="FILE", help="split list from edge-train split"
    )
    parser.add_argument(
        "--threshold",
        type=_probability,
        action="append",
        default=[],
        metavar="P",
        help="another gate threshold, as a probability, beside 0.01 and 0.5; repeatable",
    )
    rule = RegionRule()
    parser.add_argument(
        "--min-probability",
        type=_probability,
        default=rule.min_probability,
        metavar="P",
        help=f"lowest probability of a defect pixel (default {rule.min_probability:g})",
    )
    parser.add_argument(
        "--min-area-px",
        type=_count,
        default=rule.min_area_px,
        metavar="N",
        help="smallest area of a region, in pixels of the image "
        f"(default {rule.min_area_px}, for images of about 1600x256; use less for small images)",
    )
    parser.add_argument(
        "--class-names",
        type=lambda text: tuple(text.split(",")),
        metavar="A,B",
        help="classes of a segmenter without a card (default: the classes of the data)",
    )
    parser.add_argument(
        "--gallery",
        type=_gallery,
        default=6,
        metavar="N",
        help="images in each group of the report (default 6)",
    )
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="FILE",
        help="also write the masks at the lowest threshold as CSV in the competition's format",
    )
    parser.add_argument("--json", action="store_true", help="print evaluation.json")
    parser.set_defaults(run=_evaluate)


def _probability(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text}: not a probability; use a number between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: too small; use 1 or more")
    return value


def _gallery(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MAX_GALLERY:
        raise argparse.ArgumentTypeError(f"{text}: out of range; use 0 to {_MAX_GALLERY}")
    return value


def _evaluate(args: argparse.Namespace) -> int:
    from training.evaluate import gallery, report
    from training.evaluate.evaluate import Evaluator, choose, summarise
    from training.evaluate.evaluation import SEED_THRESHOLDS
    from training.evaluate.predict import TrainedStages, load

    if args.gate is None and args.segmenter is None:
        raise WorkshopError("--gate, --segmenter: both are missing; give one or both")
    if args.submission and args.segmenter is None:
        raise WorkshopError("--submission: needs a segmenter; give --segmenter")
    _make(args.out)
    gate = load("gate", args.gate) if args.gate else None
    segmenter = load("segmenter", args.segmenter) if args.segmenter else None
    dataset = _open(args, segmenter)
    networks = [one for one in (gate, segmenter) if one is not None]
    chosen = choose(dataset, args.part, networks, args.split)
    rule = RegionRule(min_probability=args.min_probability, min_area_px=args.min_area_px)
    thresholds = tuple(sorted({*SEED_THRESHOLDS, *args.threshold}))
    evaluator = Evaluator(dataset, TrainedStages(gate, segmenter, rule), thresholds)
    records, problems = _evaluate_images(evaluator, chosen, args.submission)
    evaluation = summarise(evaluator, args.part, chosen, records, problems)
    text = _json(evaluation)
    groups = gallery.choose(records, thresholds[0] if gate else None, args.gallery)
    plots = report.plots(evaluation, records)
    page = report.html(evaluation, plots, groups, evaluator.view)
    _write(args.out / "evaluation.json", text)
    for name, svg in plots.files().items():
        _write(args.out / name, svg.decode("utf-8"))
    _write(args.out / "report.html", page)
    print(text if args.json else f"{report.table(evaluation)}\n{args.out / 'report.html'}")
    return 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkshopError(f"--out: {folder}: {error.strerror}; give a writable folder") from None


def _open(args: argparse.Namespace, segmenter: TrainedNetwork | None) -> DataSet:
    from workshop.datasets import open_dataset

    names = args.class_names
    if segmenter is not None and segmenter.card is not None:
        if names is not None and names != segmenter.card.class_names:
            raise WorkshopError(
                f"--class-names: {','.join(names)}: the segmenter's card has "
                f"{','.join(segmenter.card.class_names)}; remove the option"
            )
        names = segmenter.card.class_names
    # Not strict: an invalid mask excludes its image and does not end the run.
    dataset = open_dataset(args.data, names, strict=False)
    maps = None if segmenter is None else segmenter.source.output_shape[-1]
    if maps is not None and maps != len(dataset.class_names):
        raise WorkshopError(
            f"--segmenter: {args.segmenter}: {maps} maps, but the data has "
            f"{len(dataset.class_names)} classes ({', '.join(dataset.class_names)}); give the data "
            "it was trained for, or name its classes with --class-names"
        )
    return dataset


def _evaluate_images(
    evaluator: Evaluator, chosen: UnseenImages, submission: Path | None
) -> tuple[list[ImageRecord], list[Problem]]:
    from training.evaluate.evaluate import evaluate_images

    records: list[ImageRecord] = []
    problems: list[Problem] = []
    found: Iterable[Any] = evaluate_images(evaluator, chosen, records, problems)
    if submission is not None:
        from training.evaluate.submission import write

        write(submission, found)
    else:
        for _ in found:
            pass
    return records, problems


def _json(evaluation: Evaluation) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(evaluation), indent=2).decode("utf-8")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"--out: {path}: {error.strerror}; free space and run again") from None
