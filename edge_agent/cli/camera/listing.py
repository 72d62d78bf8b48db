"""Command `camera list`: cameras on the network, at GenTL producers and at this host.

A producer or network that fails is reported on stderr; the other cameras are still listed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.cli.camera import text
from edge_agent.cli.common import Commands, add
from edge_agent.cli.kit import json_option
from edge_agent.errors import CameraError

if TYPE_CHECKING:
    from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera


def register(acts: Commands) -> None:
    """Add the command `list`."""
    listed = add(acts, "list", "which cameras answer", "camera list --json", _list)
    listed.add_argument(
        "--cti",
        action="append",
        default=[],
        metavar="FILE",
        help="a GenTL producer, again for more (default: those in $GENICAM_GENTL64_PATH)",
    )
    json_option(listed)


def _list(args: argparse.Namespace) -> None:
    found, trouble = _all_cameras(args.cti)
    print(msgspec.json.encode(found).decode() if args.json else text.found(found))
    for line in trouble:
        print(f"edge-agent: {line}", file=sys.stderr)


def _all_cameras(ctis: list[str]) -> tuple[list[DiscoveredCamera], list[str]]:
    """Return the cameras found, and an error line for each source that failed.

    Raises CameraError for a producer of `ctis`.
    """
    from edge_agent.camera.backends.genicam import gentl, gvcp, viva

    found: list[DiscoveredCamera] = []
    trouble: list[str] = []
    own = gvcp.interfaces()
    try:
        for one in viva.devices():
            foreign = one.transport == "gige" and gvcp.home(one.ip, own) is None
            note = "in another subnet than this host" if foreign else one.note
            found.append(msgspec.structs.replace(one, note=note))
    except CameraError as error:
        trouble.append(str(error))
    for cti in ctis or _producers():
        try:
            found += [msgspec.structs.replace(one, note=cti) for one in gentl.devices(cti)]
        except CameraError as error:
            if ctis:
                raise
            trouble.append(str(error))
    return found + _webcams(), trouble


def _producers() -> list[str]:
    """Return the `.cti` files in the folders of $GENICAM_GENTL64_PATH."""
    folders = os.environ.get("GENICAM_GENTL64_PATH", "").split(os.pathsep)
    return sorted(str(path) for folder in folders if folder for path in Path(folder).glob("*.cti"))


def _webcams() -> list[DiscoveredCamera]:
    """Return the Video4Linux devices of this host."""
    from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera

    found: list[DiscoveredCamera] = []
    for path in sorted(Path("/sys/class/video4linux").glob("video*")):
        with contextlib.suppress(OSError):
            model = (path / "name").read_text(encoding="utf-8", errors="replace").strip()
            found.append(DiscoveredCamera(kind="v4l2", model=model, device_id=f"/dev/{path.name}"))
    return found
