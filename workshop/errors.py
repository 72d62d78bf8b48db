"""The error of the workshop's users."""

from __future__ import annotations

from edge_agent.errors import EdgeError


class WorkshopError(EdgeError):
    """Data, a model, a configuration or an option cannot be used. One line: field, value, fix."""
