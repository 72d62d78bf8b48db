"""edge-export: trained Keras models in, a verified bundle out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from edge_agent.errors import EdgeError

_EXAMPLE = """\
example:
  edge-export --gate gate.keras --segmenter segmenter.keras --samples frames --out bundle
Then set the gate's threshold: edge-calibrate gate --bundle bundle --data labelled
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-export",
        description="Convert the two networks to ONNX and TFLite, float32 and int8, compare each "
        "with float Keras, and pack them as a bundle.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gate", type=Path, required=True, metavar="FILE", help=".keras")
    parser.add_argument("--segmenter", type=Path, required=True, metavar="FILE", help=".keras")
    parser.add_argument(
        "--samples",
        type=Path,
        required=True,
        metavar="DIR",
        help="images like the line's, with defects of every class: they set the int8 ranges",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle")
    parser.add_argument("--name", default="linegate", help="of the bundle (default linegate)")
    parser.add_argument("--bundle-version", type=int, default=1, help="only rises (default 1)")
    parser.add_argument("--classes", default="", help="names, comma between; else labels.csv's")
    parser.add_argument("--max-samples", type=int, default=100, help="(default 100)")
    parser.add_argument("--min-area-px", type=int, default=150, help="smallest defect, frame px")
    parser.add_argument("--min-probability", type=float, default=0.5, help="of a defect's pixels")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    return parser


def _export(args: argparse.Namespace) -> None:
    import msgspec
    from tqdm import tqdm

    from edge_agent.bundle import RegionRule
    from export import compare, exporter, pack, samples, source
    from export.errors import ExportError

    try:
        rule = msgspec.convert(
            {"min_probability": args.min_probability, "min_area_px": args.min_area_px}, RegionRule
        )
    except msgspec.ValidationError as error:
        raise ExportError(f"--min-probability or --min-area-px: {error}") from None
    if args.bundle_version < 1 or args.max_samples < 4:
        raise ExportError("--bundle-version must be at least 1 and --max-samples at least 4")
    images = samples.read(args.samples, args.max_samples)
    sources = [source.load("gate", args.gate), source.load("segmenter", args.segmenter)]
    maps = sources[1].model.output_shape[3]
    names = tuple(args.classes.split(",")) if args.classes else ()
    names = names or samples.class_names(args.samples, maps)
    if len(names) != maps:
        raise ExportError(f"--classes: {len(names)} names for {maps} maps")
    golden = exporter.golden_samples(sources[0], images)
    made: dict[str, list[pack.Made]] = {}
    rows: list[compare.Row] = []
    with tqdm(total=8, desc="export", unit="artifact", file=sys.stderr) as progress:
        for one in sources:
            made[one.stage] = []
            for artifact, row in exporter.forms(one, images, golden):
                made[one.stage].append(artifact)
                rows.append(row)
                progress.set_postfix_str(f"{one.stage} {row.label}")
                progress.update()
    pack.write(
        args.out,
        name=args.name,
        version=args.bundle_version,
        class_names=names,
        sources=sources,
        made=made,
        golden_images=[images[i] for i in golden],
        regions=rule,
    )
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print(compare.table(rows))
        print(f"bundle: {args.out}")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        _export(args)
    except EdgeError as error:
        print(f"edge-export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
