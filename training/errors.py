"""Errors of a training or evaluation run."""

from __future__ import annotations

from workshop.errors import WorkshopError


class RunError(WorkshopError):
    """Failure of a run after its start; completed results are kept."""

    exit_code = 1
