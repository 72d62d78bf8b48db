"""What the person who trains must act on."""

from __future__ import annotations

from workshop.errors import WorkshopError


class RunFailed(WorkshopError):
    """After the start: what was reached until then is kept."""

    exit_code = 1
