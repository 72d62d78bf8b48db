"""Error of the workshop's tools, reported to their users."""

from __future__ import annotations

from edge_agent.errors import EdgeError


class WorkshopError(EdgeError):
    """Unusable data, model, configuration or option. The message is one line: field, value, fix."""
