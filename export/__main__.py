"""edge-export: convert trained Keras models to a verified and signed bundle."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import kit
from export import cli_signing
from workshop import progress, terminal

if TYPE_CHECKING:
    from edge_agent.bundle.manifest import RegionRule
    from export import float_comparison
    from export.acceptance.criteria import Limits
    from export.acceptance_run import AcceptanceResult
    from export.exporter import Form

_EXAMPLES = """\
examples:
  edge-export convert --gate gate.keras --segmenter segmenter.keras --data labelled --out bundle
  edge-export keygen --out line.key                         (once)
  edge-export sign bundle --key line.key
  edge-export pack bundle --out steel-1.linegate            (one file to carry)
  edge-export verify steel-1.linegate --trusted line.key.pub
"""
_CONVERT_EXAMPLES = """\
examples:
  edge-export convert --gate gate.keras --segmenter segmenter.keras --data labelled --out bundle
  edge-export convert --gate gate.keras --segmenter segmenter.keras --samples frames --out bundle
The last one has no guard and no thresholds: edge-calibrate gate --bundle bundle --data labelled
"""
_NAMELESS = (
    "notice: write edge-export convert --gate ...; without the name it is understood in this "
    "release only"
)
_UNGUARDED = (
    "No guard: the --samples have no labels, so nobody looked whether a form loses defects. "
    "With --data it is made sure."
)


def _parser() -> argparse.ArgumentParser:
    parser = kit.parser(
        "edge-export",
        "From two trained networks to a bundle that is whole, signed and ready to carry.",
        _EXAMPLES,
    )
    names = parser.add_subparsers(dest="command", required=True)
    _convert_arguments(
        names.add_parser(
            "convert",
            help="make a bundle of two networks",
            description="Convert the two networks to ONNX and TFLite, float32 and int8, compare "
            "each with float Keras, and pack them as a bundle.",
            epilog=_CONVERT_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    cli_signing.add_all(names)
    return parser


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    for stage in ("gate", "segmenter"):
        parser.add_argument(
            f"--{stage}",
            type=Path,
            required=True,
            metavar="FILE",
            help=".keras, .h5, a SavedModel folder, or model.json with its weights",
        )
        parser.add_argument(
            f"--{stage}-weights", type=Path, metavar="FILE", help="of a model.json: its .hdf5"
        )
    parser.add_argument(
        "--trust", action="store_true", help="run code in the models: Lambda layers and the like"
    )
    parser.add_argument(
        "--uint8-input",
        action="store_true",
        help="networks take the camera's levels and divide by 255 themselves; a network whose "
        "input is standardised stays as it is",
    )
    parser.add_argument(
        "--forms",
        default="usual",
        metavar="A,B",
        help="what to make: usual (float32 and int8 for this CPU), all, or some of "
        "onnx-{float32,float16,int8,int8-aarch64}, tflite-{float32,float16,dynamic,int8}",
    )
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="labelled images: no form may lose what the float networks find on them",
    )
    images.add_argument(
        "--samples",
        type=Path,
        metavar="DIR",
        help="images like the line's, with defects of every class: they set the int8 ranges, and "
        "nothing guards the forms",
    )
    _guard_arguments(parser.add_argument_group("the guard, with --data"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle")
    parser.add_argument("--name", default="linegate", help="of the bundle (default linegate)")
    parser.add_argument("--bundle-version", type=int, default=1, help="only rises (default 1)")
    parser.add_argument(
        "--classes", default="", help="names, comma between; else the card's or labels.csv's"
    )
    parser.add_argument("--max-samples", type=int, default=100, help="(default 100)")
    parser.add_argument("--min-area-px", type=int, default=150, help="smallest defect, frame px")
    parser.add_argument("--min-probability", type=float, default=0.5, help="of a defect's pixels")
    kit.json_option(parser, "print export.json, without --data the comparison")
    terminal.verbose_option(parser)
    parser.set_defaults(act=_convert)


def _guard_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sets",
        type=Path,
        metavar="FILE",
        help="which image is for what: file,part (range, search, threshold, test); else made",
    )
    group.add_argument(
        "--max-images",
        type=int,
        default=1000,
        help="for search, threshold and test, each (default 1000)",
    )
    group.add_argument(
        "--miss-rate", type=float, default=0.005, help="of the thresholds (default 0.005)"
    )
    group.add_argument(
        "--max-more-false-alarms",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="than the float gate, in percentage points of the defect-free images (default 1)",
    )
    group.add_argument(
        "--max-dice-drop", type=float, default=0.01, help="of the mean Dice (default 0.01)"
    )


def _convert(args: argparse.Namespace) -> None:
    with terminal.quiet("edge-export", verbose=args.verbose):
        _export(args)


def _export(args: argparse.Namespace) -> None:
    from export import acceptance_run, bundle_writer, exporter, memory
    from workshop.datasets import image_folder
    from workshop.errors import WorkshopError
    from workshop.keras_models import load

    memory.limit_heap()
    rule, limits = _rule(args), _limits(args)
    images = image_folder.read(args.samples, args.max_samples) if args.samples else []
    wanted = _forms(args.forms)
    sources = [
        load.load(stage, path, weights, trust=args.trust, uint8_input=args.uint8_input)
        for stage, path, weights in (
            ("gate", args.gate, args.gate_weights),
            ("segmenter", args.segmenter, args.segmenter_weights),
        )
    ]
    memory.give_back()
    maps = sources[1].output_shape[2]
    card = sources[1].card
    names = tuple(args.classes.split(",")) if args.classes else ()
    names = names or (card.class_names if card else ())
    if names and len(names) != maps:
        raise WorkshopError(f"--classes: {len(names)} names for {maps} maps")
    guard = None
    if args.data:
        most = (args.max_samples, *[args.max_images] * 3)
        guard = acceptance_run.open_guard(args.data, names, sources, args.sets, most, limits, rule)
        images, names = guard.images(), guard.data.class_names
    names = names or image_folder.class_names(args.samples, maps)
    golden = exporter.golden_samples(sources[0], images)
    made: dict[str, list[bundle_writer.ExportedArtifact]] = {}
    rows: list[float_comparison.ComparisonRow] = []
    with progress.counted(2 * (len(wanted) + 1), "export", "step") as bar:
        for one in sources:

            def done(what: str, stage: str = one.stage) -> None:
                bar.step(f"{stage} {what}")

            convert_all = guard.convert_all(one, bar.note) if guard else None
            made[one.stage], found = exporter.forms(one, wanted, images, golden, done, convert_all)
            rows += found
    judged = guard.judge(sources, made, rows) if guard else None
    bundle_writer.write(
        args.out,
        name=args.name,
        version=args.bundle_version,
        class_names=names,
        sources=sources,
        made=judged.made if judged else made,
        golden_images=[images[i] for i in golden],
        regions=rule,
        beside=judged.beside if judged else {},
        unnamed=judged.unnamed if judged else {},
        provenance=judged.provenance if judged else {},
    )
    _print(args, rows, judged)


def _print(
    args: argparse.Namespace,
    rows: list[float_comparison.ComparisonRow],
    judged: AcceptanceResult | None,
) -> None:
    from export import float_comparison
    from export.report import document

    if args.json:
        rest = json.dumps([asdict(row) for row in rows])
        print(document.encode(judged.report).decode() if judged else rest)
        return
    print(float_comparison.table(rows))
    print()
    print(document.table(judged.report) if judged else _UNGUARDED)
    print(f"bundle: {args.out}")


def _rule(args: argparse.Namespace) -> RegionRule:
    import msgspec

    from edge_agent.bundle.manifest import MAX_VERSION, RegionRule
    from workshop.errors import WorkshopError

    if not 1 <= args.bundle_version <= MAX_VERSION:
        raise WorkshopError(f"--bundle-version: {args.bundle_version}: give 1 to {MAX_VERSION}")
    if min(args.max_samples, args.max_images) < 4:
        raise WorkshopError("--max-samples and --max-images must be at least 4")
    try:
        return msgspec.convert(
            {"min_probability": args.min_probability, "min_area_px": args.min_area_px}, RegionRule
        )
    except msgspec.ValidationError as error:
        raise WorkshopError(f"--min-probability or --min-area-px: {error}") from None


def _limits(args: argparse.Namespace) -> Limits:
    from export.acceptance.criteria import Limits
    from workshop.errors import WorkshopError

    if args.sets and not args.data:
        raise WorkshopError("--sets: without --data there is nothing to share out; give --data")
    if not 0 <= args.miss_rate < 1:
        raise WorkshopError(f"--miss-rate: {args.miss_rate}: give a share from 0 to below 1")
    if not (0 <= args.max_more_false_alarms <= 100 and 0 <= args.max_dice_drop <= 1):
        raise WorkshopError(
            "--max-more-false-alarms is 0 to 100 (percentage points), --max-dice-drop 0 to 1"
        )
    return Limits(
        miss_rate=args.miss_rate,
        more_false_alarms=args.max_more_false_alarms,
        dice_drop=args.max_dice_drop,
    )


def _forms(text: str) -> tuple[Form, ...]:
    from export.exporter import FORMS, USUAL
    from workshop.errors import WorkshopError

    if text in ("usual", "all"):
        return USUAL if text == "usual" else FORMS
    by_name = {form.label: form for form in FORMS}
    unknown = [name for name in text.split(",") if name not in by_name]
    if unknown:
        raise WorkshopError(
            f"--forms: {unknown[0]!r} is none; write usual, all or some of {', '.join(by_name)}"
        )
    return tuple(form for form in FORMS if form.label in text.split(","))


def main(argv: list[str] | None = None) -> int:
    """Run edge-export on `argv` or the command line; return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0].startswith("--") and words[0] not in ("--help", "--version"):
        print(_NAMELESS, file=sys.stderr)
        words = ["convert", *words]
    args = _parser().parse_args(words)
    return kit.run("edge-export", lambda: args.act(args))


if __name__ == "__main__":
    sys.exit(main())
