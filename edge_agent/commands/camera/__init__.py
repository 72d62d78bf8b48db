"""camera list, info, grab, watch, test: a camera put into service, before anything inspects."""

from __future__ import annotations

from edge_agent.commands.camera import grab, info, listing, test, watch
from edge_agent.commands.common import Commands


def register(commands: Commands) -> None:
    text = "find, look at and test a camera"
    camera = commands.add_parser(
        "camera", help=text, description=text, epilog="example: edge-agent camera list"
    )
    acts = camera.add_subparsers(dest="camera_command", required=True)
    for one in (listing, info, grab, watch, test):
        one.register(acts)
