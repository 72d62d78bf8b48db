"""Command `camera test`: take blocks for a while and judge them; the result is the exit code."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.cli.camera.options import camera_of, camera_options
from edge_agent.cli.common import Commands, add, count
from edge_agent.cli.kit import RunFailure, json_option
from edge_agent.errors import EdgeError

if TYPE_CHECKING:
    from edge_agent.camera.line_camera import LineCamera
    from edge_agent.cli.camera.session import CameraSession


def register(acts: Commands) -> None:
    """Add the command `test`."""
    test = add(
        acts,
        "test",
        "take blocks for a while and judge how they came",
        "camera test --config line.toml --seconds 60 --json",
        _test,
        more=". Exit codes: 0 all came complete, 1 not, 2 no camera.",
    )
    test.add_argument("--seconds", type=count, default=60, metavar="N", help="(default 60)")
    camera_options(test)
    json_option(test)


def _test(args: argparse.Namespace) -> None:
    from edge_agent.camera.test_report import judge, table
    from edge_agent.cli.camera.session import assembled

    with assembled(camera_of(args)) as (camera, session):
        cpu_s, began_s = time.process_time(), time.monotonic()
        _run(camera, began_s, args.seconds)
        cpu_s, seconds = time.process_time() - cpu_s, time.monotonic() - began_s
        camera.drain()  # count losses at the very end too
        counts, live = camera.counts, camera.live
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    used, recommended, mtu = _packets(session)
    verdict = judge(
        session.tap,
        counts,
        seconds=seconds,
        cpu_s=cpu_s,
        packet_size=used,
        recommended_packet_size=recommended,
        mtu=mtu,
        receive_buffer_bytes=_kernel_number("/proc/sys/net/core/rmem_max") if used else None,
        live=live,
    )
    print(msgspec.json.encode(verdict).decode() if args.json else table(verdict))
    if not verdict.passed:
        raise RunFailure("camera test: failed, see above")


def _run(camera: LineCamera, began_s: float, seconds: int) -> None:
    """Take blocks until the time is up or the camera ends."""
    from edge_agent.camera import EndOfStream

    end_s, shown_s = began_s + seconds, began_s
    with contextlib.suppress(EndOfStream):
        while (left_s := end_s - time.monotonic()) > 0:
            camera.grab(min(0.2, left_s))
            if sys.stderr.isatty() and time.monotonic() - shown_s > 1:
                shown_s = time.monotonic()
                print(f"\r{left_s:.0f} s left ", end="", file=sys.stderr, flush=True)


def _packets(session: CameraSession) -> tuple[int | None, int | None, int | None]:
    """Return packet size in use, largest size that passes, and MTU, in bytes; None if unknown."""
    from edge_agent.camera import open_backend
    from edge_agent.config.camera import GenicamCamera

    config, opened = session.config, session.opened
    if not isinstance(config, GenicamCamera) or opened is None or opened.packet_size is None:
        return None, None, None
    mtu = _kernel_number(f"/sys/class/net/{opened.camera.interface}/mtu")
    if config.packet_size == "auto":
        return opened.packet_size, opened.packet_size, mtu
    recommended = None
    with contextlib.suppress(EdgeError):
        probe = open_backend(msgspec.structs.replace(config, packet_size="auto"))
        recommended = probe.opened.packet_size  # type: ignore[attr-defined]
        probe.close()
    return opened.packet_size, recommended, mtu


def _kernel_number(path: str) -> int | None:
    """Return the number in a file of /proc or /sys; None if there is none."""
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
