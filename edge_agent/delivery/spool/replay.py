"""Replay request: a file that asks the running agent to send messages again.

Only the agent writes to the spool, since SQLite's log has a single writer here. Another process
leaves this file beside the spool instead, and the agent takes it within about two seconds.
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
    """Content of the request file: times of spooling in ns since 1970, and states."""

    since_ns: int
    until_ns: int
    states: tuple[int, ...]


def path(state_dir: Path) -> Path:
    """Return the path of the request file in `state_dir`."""
    return state_dir / "replay.json"


def leave(file: Path, choice: MessageFilter) -> None:
    """Write a request to `file` atomically. Raises OSError."""
    wish = _ReplayRequest(choice.since_ns, choice.until_ns, choice.states)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_bytes(msgspec.json.encode(wish))
    part.replace(file)


def take(file: Path) -> MessageFilter | None:
    """Read and delete the request file.

    Returns:
        The requested filter, limited to sent messages and dead letters; None if there is no valid
        request or the file cannot be deleted.
    """
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
        return None  # else the request would run again at each look
    bounds = (wish.since_ns, wish.until_ns) if wish else ()
    if wish is None or any(not 0 <= n < 1 << 63 for n in bounds):
        return None
    states = tuple(s for s in wish.states if s in (SENT, ASIDE))
    return MessageFilter(since_ns=wish.since_ns, until_ns=wish.until_ns, states=states)
