"""Draft: an event or gap before it has a number."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.messages.events import DefectEvent, GapEvent

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """Event or gap without a number; numbers are given in spool order.

    `picture` is called at spooling and returns a JPEG of the frame, sent after the event.
    """

    data: DefectEvent | GapEvent
    captured_utc_ns: int
    picture: Callable[[], bytes] | None = None
