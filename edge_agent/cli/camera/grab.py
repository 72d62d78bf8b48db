"""Command `camera grab`: write frames to image files, unchanged."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.camera import text
from edge_agent.cli.camera.options import camera_of, camera_options
from edge_agent.cli.common import Commands, add, count
from edge_agent.cli.kit import RunFailure, json_option
from edge_agent.errors import ConfigError

if TYPE_CHECKING:
    from edge_agent.frame import Frame


def register(acts: Commands) -> None:
    """Add the command `grab`."""
    grab = add(
        acts, "grab", "write frames as pictures", "camera grab --kind genicam -o one.png", _grab
    )
    grab.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="PNG, TIFF...")
    grab.add_argument("--frames", type=count, default=1, metavar="N", help="as FILE-0001 and on")
    camera_options(grab)
    json_option(grab)


def _grab(args: argparse.Namespace) -> None:
    from edge_agent.cli.camera.session import assembled, frames

    _check_out(args.out)
    written: list[text.GrabbedImage] = []
    with assembled(camera_of(args)) as (camera, _):
        for number, frame in zip(range(1, args.frames + 1), frames(camera), strict=False):
            path = args.out
            if args.frames > 1:
                path = path.with_name(f"{path.stem}-{number:04d}{path.suffix}")
            written.append(_written(path, frame))
    if len(written) < args.frames:
        raise RunFailure(f"{len(written)} of {args.frames} frames, then the camera ended")
    print(text.as_json(written) if args.json else text.pictures(written))


def _check_out(out: Path) -> None:
    """Raise ConfigError unless the suffix is known and the folder exists."""
    from edge_agent.image_files import SUFFIXES

    if out.suffix.lower() not in SUFFIXES:
        known = ", ".join(sorted(SUFFIXES))
        raise ConfigError(f"-o: {out}: give a picture's name, one of {known}")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"-o: {out}: no such folder; make it first")


def _written(path: Path, frame: Frame) -> text.GrabbedImage:
    """Write a frame and return its entry. Raises RunFailure if it cannot be written."""
    import cv2

    image = frame.image
    picture = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        done = cv2.imwrite(str(path), picture)
    except cv2.error as error:
        raise RunFailure(f"-o: {path}: {error.err}") from None
    if not done:
        raise RunFailure(f"-o: {path}: cannot be written")
    return text.GrabbedImage(
        file=str(path),
        width_px=int(image.shape[1]),
        height_px=int(image.shape[0]),
        channels=1 if image.ndim == 2 else 3,
        first_line=frame.first_line,
        encoder_count=frame.span.encoder_count,
    )
