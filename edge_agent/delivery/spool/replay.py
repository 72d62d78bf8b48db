"""A person's wish that messages be sent again, left as a file for the agent that is running.

A second process must not write into the spool (SQLite's log has one writer here), so it leaves the
wish beside it, and the agent takes it within a second.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from edge_agent.delivery.spool.message import ASIDE, SENT, MessageFilter

_log = logging.getLogger(__name__)

_MAX_BYTES = 4096


class _ReplayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    since_ns: int
    until_ns: int
    states: tuple[int, ...]


def path(state_dir: Path) -> Path:
    return state_dir / "replay.json"


def leave(file: Path, choice: MessageFilter) -> None:
    """Raises OSError."""
    wish = _ReplayRequest(choice.since_ns, choice.until_ns, choice.states)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_bytes(msgspec.json.encode(wish))
    part.replace(file)


def take(file: Path) -> MessageFilter | None:
    """The wish that was left, once."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise msgspec.DecodeError(f"more than {_MAX_BYTES} bytes")
        wish = msgspec.json.decode(file.read_bytes(), type=_ReplayRequest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _log.error("spool: %s is not understood: %s", file, error)
        wish = None
    try:
        file.unlink()
    except OSError:
        return None  # or it would be done again and again
    bounds = (wish.since_ns, wish.until_ns) if wish else ()
    if wish is None or any(not 0 <= n < 1 << 63 for n in bounds):
        return None
    states = tuple(s for s in wish.states if s in (SENT, ASIDE))
    return MessageFilter(since_ns=wish.since_ns, until_ns=wish.until_ns, states=states)
