"""Command `camera watch`: rates, losses, exposure and focus each second, to adjust the lens."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import TYPE_CHECKING

from edge_agent.cli.camera import text
from edge_agent.cli.camera.options import camera_of, camera_options
from edge_agent.cli.common import Commands, add, count
from edge_agent.cli.kit import json_option

if TYPE_CHECKING:
    from edge_agent.camera.commissioning import BlockRecorder
    from edge_agent.camera.line_camera import LineCamera
    from edge_agent.frame import Frame


def register(acts: Commands) -> None:
    """Add the command `watch`."""
    watch = add(
        acts,
        "watch",
        "rates, drops, exposure and focus, live",
        "camera watch --config line.toml",
        _watch,
        more="; Ctrl-C ends it. Focus: Brenner's measure, highest where the image is sharpest.",
    )
    watch.add_argument("--seconds", type=count, metavar="N", help="end after N seconds")
    watch.set_defaults(until_interrupted=True)
    camera_options(watch)
    json_option(watch)


def _watch(args: argparse.Namespace) -> None:
    from edge_agent.camera import EndOfStream
    from edge_agent.cli.camera.session import assembled
    from edge_agent.frame import Frame

    with assembled(camera_of(args)) as (camera, session):
        end_s = time.monotonic() + args.seconds if args.seconds else float("inf")
        while time.monotonic() < end_s:
            next_s, latest = min(end_s, time.monotonic() + 1), None
            session.begin_anew()
            try:
                while (left_s := next_s - time.monotonic()) > 0:
                    taken = camera.grab(min(0.2, left_s))
                    latest = taken if isinstance(taken, Frame) else latest
            except EndOfStream:
                return
            _print(_live(camera, session.tap, latest), as_json=args.json)


def _live(camera: LineCamera, tap: BlockRecorder, latest: Frame | None) -> text.LiveStatistics:
    """Return the statistics of the last second; `latest` gives focus and exposure."""
    from edge_agent.camera import commissioning

    counts = camera.counts
    return text.LiveStatistics(
        state=camera.status.state,
        blocks_per_second=tap.blocks_per_second,
        lines_per_second=tap.lines_per_second,
        blocks_missing=counts.blocks_missing,
        blocks_incomplete=sum(counts.blocks_rejected.values()),
        packets_lost=counts.packets_lost,
        packets_resent=counts.packets_resent,
        focus=commissioning.focus(latest.image) if latest else None,
        exposure=commissioning.exposure(latest.image) if latest else None,
    )


def _print(now: text.LiveStatistics, *, as_json: bool) -> None:
    if as_json:
        print(text.as_json(now), flush=True)
        return
    line = text.live(now, time.strftime("%H:%M:%S"))
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
    else:
        print(line, flush=True)
