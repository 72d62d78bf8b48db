"""linegate's agent: two-stage inspection on the line, events over MQTT.

Public: `Agent`, `load_config`, the event types and the version. Each is imported when it is first
used, so that a command loads no more than it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_agent.version import VERSION as __version__  # noqa: N811 - the name that tools read

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.config.config import load as load_config
    from edge_agent.messages.events import CloudEvent, DefectEvent, GapEvent

_PUBLIC = {
    "Agent": ("edge_agent.agent", "Agent"),
    "CloudEvent": ("edge_agent.messages.events", "CloudEvent"),
    "DefectEvent": ("edge_agent.messages.events", "DefectEvent"),
    "GapEvent": ("edge_agent.messages.events", "GapEvent"),
    "load_config": ("edge_agent.config.config", "load"),
}

__all__ = ["Agent", "CloudEvent", "DefectEvent", "GapEvent", "__version__", "load_config"]


def __getattr__(name: str) -> Any:
    """Import the public name `name`. Raises AttributeError for any other."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)
