"""edge-train evaluate."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.bundle.manifest import RegionRule
from training.errors import RunFailed
from workshop.errors import WorkshopError

if TYPE_CHECKING:  # tensorflow and matplotlib take seconds: not for --help
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

Writes evaluation.json, report.html and its plots as SVG into --out. Judged are images that
neither model has seen in training or validation, as the cards in the models tell, unless --part
says otherwise.
"""
_MOST_IN_GALLERY = 100


def add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="figures and a report of trained models on labelled images",
        description="Judge a gate, a segmenter, or both as on the line, on labelled images.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled images")
    parser.add_argument("--gate", type=Path, metavar="FILE", help=".keras; may be left out")
    parser.add_argument("--segmenter", type=Path, metavar="FILE", help=".keras; may be left out")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="made if need be")
    parser.add_argument(
        "--part",
        choices=("unseen", "all", "train", "validation", "test"),
        default="unseen",
        help="which images; the last three need --split (default unseen)",
    )
    parser.add_argument("--split", type=Path, metavar="FILE", help="the list of edge-train split")
    parser.add_argument(
        "--threshold",
        type=_inside,
        action="append",
        default=[],
        metavar="P",
        help="a gate threshold, probability; repeatable; beside 0.01 and 0.5",
    )
    rule = RegionRule()
    parser.add_argument(
        "--min-probability",
        type=_inside,
        default=rule.min_probability,
        metavar="P",
        help=f"of a pixel to be a defect (default {rule.min_probability:g})",
    )
    parser.add_argument(
        "--min-area-px",
        type=_count,
        default=rule.min_area_px,
        metavar="N",
        help=f"of a region, in pixels of the image (default {rule.min_area_px}, for images of some "
        "1600x256; take less for small ones)",
    )
    parser.add_argument(
        "--class-names",
        type=lambda text: tuple(text.split(",")),
        metavar="A,B",
        help="of the segmenter's maps, where it has no card (default: the data's)",
    )
    parser.add_argument(
        "--gallery",
        type=_gallery,
        default=6,
        metavar="N",
        help="pictures of each kind in the report (default 6)",
    )
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="FILE",
        help="also what is found at the least threshold, in the competition's CSV",
    )
    parser.add_argument("--json", action="store_true", help="print evaluation.json")
    parser.set_defaults(run=_evaluate)


def _inside(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text}: a probability between 0 and 1 is needed")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1 is needed")
    return value


def _gallery(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MOST_IN_GALLERY:
        raise argparse.ArgumentTypeError(f"{text}: 0 to {_MOST_IN_GALLERY}")
    return value


def _evaluate(args: argparse.Namespace) -> int:
    from training.evaluate import gallery, report
    from training.evaluate.evaluate import Evaluator, choose, summed_up
    from training.evaluate.evaluation import SEED_THRESHOLDS
    from training.evaluate.predict import TrainedStages, load

    if args.gate is None and args.segmenter is None:
        raise WorkshopError("--gate, --segmenter: give one or both")
    if args.submission and args.segmenter is None:
        raise WorkshopError("--submission: nothing is found without a --segmenter; give one")
    _make(args.out)
    gate = load("gate", args.gate) if args.gate else None
    segmenter = load("segmenter", args.segmenter) if args.segmenter else None
    dataset = _open(args, segmenter)
    networks = [one for one in (gate, segmenter) if one is not None]
    chosen = choose(dataset, args.part, networks, args.split)
    rule = RegionRule(min_probability=args.min_probability, min_area_px=args.min_area_px)
    thresholds = tuple(sorted({*SEED_THRESHOLDS, *args.threshold}))
    judge = Evaluator(dataset, TrainedStages(gate, segmenter, rule), thresholds)
    records, problems = _judged(judge, chosen, args.submission)
    evaluation = summed_up(judge, args.part, chosen, records, problems)
    text = _json(evaluation)
    groups = gallery.choose(records, thresholds[0] if gate else None, args.gallery)
    plots = report.plots(evaluation, records)
    page = report.html(evaluation, plots, groups, judge.view)
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
        raise WorkshopError(f"--out: {folder}: {error.strerror}; give a folder") from None


def _open(args: argparse.Namespace, segmenter: TrainedNetwork | None) -> DataSet:
    from workshop.datasets import open_dataset

    names = args.class_names
    if segmenter is not None and segmenter.card is not None:
        if names is not None and names != segmenter.card.class_names:
            raise WorkshopError(
                f"--class-names: {','.join(names)}: the segmenter's card says "
                f"{','.join(segmenter.card.class_names)}; leave it out"
            )
        names = segmenter.card.class_names
    # A broken mask costs its image, not the run.
    dataset = open_dataset(args.data, names, strict=False)
    maps = None if segmenter is None else segmenter.source.output_shape[-1]
    if maps is not None and maps != len(dataset.class_names):
        raise WorkshopError(
            f"--segmenter: {args.segmenter}: {maps} maps, but the data has "
            f"{len(dataset.class_names)} classes ({', '.join(dataset.class_names)}); give the data "
            "it was made for, or name its maps with --class-names"
        )
    return dataset


def _judged(
    judge: Evaluator, chosen: UnseenImages, submission: Path | None
) -> tuple[list[ImageRecord], list[Problem]]:
    from training.evaluate.evaluate import judged

    records: list[ImageRecord] = []
    problems: list[Problem] = []
    found: Iterable[Any] = judged(judge, chosen, records, problems)
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
        raise RunFailed(f"--out: {path}: {error.strerror}; make room and run it again") from None
