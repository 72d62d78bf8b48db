"""What the person who trains must act on."""

from __future__ import annotations

from edge_agent.errors import EdgeError


class TrainingError(EdgeError):
    """Data, configuration or models that cannot be used. One line: field, value, fix."""


class RunFailed(TrainingError):
    """After the start: what was reached until then is kept. Exit code 1."""
