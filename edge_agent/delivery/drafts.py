"""Drafts to numbered messages, and the gaps that say which messages were lost. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.messages.events import DefectEvent, GapEvent

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """An event or gap that has no number yet; numbers are given in the order of the spool.

    `picture`, called when it is spooled, makes a JPEG of the frame, sent behind the event.
    """

    data: DefectEvent | GapEvent
    captured_utc_ns: int
    picture: Callable[[], bytes] | None = None
