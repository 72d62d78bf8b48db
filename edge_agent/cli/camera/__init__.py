"""Command `camera`: list, info, grab, watch and test, to commission a camera."""

from __future__ import annotations

from edge_agent.cli.camera import grab, info, listing, test, watch
from edge_agent.cli.common import Commands, group


def register(commands: Commands) -> None:
    """Add the command `camera`."""
    text = "find, look at and test a camera"
    acts = group(commands, "camera", text, "camera list")
    for one in (listing, info, grab, watch, test):
        one.register(acts)
