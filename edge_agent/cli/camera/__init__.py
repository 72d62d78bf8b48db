"""camera list, info, grab, watch, test: a camera put into service, before anything inspects."""

from __future__ import annotations

from edge_agent.cli.camera import grab, info, listing, test, watch
from edge_agent.cli.common import Commands, group


def register(commands: Commands) -> None:
    text = "find, look at and test a camera"
    acts = group(commands, "camera", text, "camera list")
    for one in (listing, info, grab, watch, test):
        one.register(acts)
