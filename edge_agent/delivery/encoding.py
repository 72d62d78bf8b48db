"""Encoding of drafts as numbered messages."""

from __future__ import annotations

import msgspec

from edge_agent.delivery.drafts import Draft, _log
from edge_agent.delivery.losses import lost
from edge_agent.delivery.spool.message import PICTURE, Message
from edge_agent.frame import GapReason
from edge_agent.messages.events import DefectEvent, Dropped, envelope


def messages(draft: Draft, seq: int, max_bytes: int) -> tuple[Message, ...]:
    """Encode a draft as message `seq`, with its picture if there is one.

    An event of more than `max_bytes` becomes a gap; a larger picture is left out.
    """
    data = msgspec.structs.replace(draft.data, seq=seq)
    picture = _picture(draft)
    if picture and len(picture) <= max_bytes and isinstance(data, DefectEvent):
        data = msgspec.structs.replace(data, evidence=f"{data.boot_id}-{seq}")
    payload = msgspec.json.encode(envelope(data, draft.captured_utc_ns))
    if len(payload) > max_bytes:
        why = f"the event has {len(payload)} bytes, more than the {max_bytes} the spool takes"
        gap = lost(draft, GapReason.SPOOL_OVERFLOW, why, Dropped(messages=1, pictures=0, ranges=()))
        return messages(gap, seq, 1 << 30)
    kind = "event" if isinstance(data, DefectEvent) else "gap"
    message = Message(kind, data.boot_id, payload, seq)
    if not isinstance(data, DefectEvent) or not data.evidence:
        return (message,)
    return message, Message(PICTURE + data.evidence, data.boot_id, picture)


def _picture(draft: Draft) -> bytes:
    try:
        return draft.picture() if draft.picture else b""
    except Exception as error:  # any OpenCV error; the event must not be lost with its picture
        _log.error("evidence: frame %d has no picture: %s", draft.data.frame_id, error)
        return b""


def replayed(payload: bytes) -> bytes:
    """Return the payload with `replayed` set to true; unchanged if it cannot be decoded."""
    try:
        tree = msgspec.json.decode(payload)
        tree["data"]["replayed"] = True
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError, RecursionError) as error:
        # Damaged on disk, undetected by SQLite. It is sent unchanged: subscribers reject it by the
        # schema, and it must not block the messages behind it.
        _log.error("spool: a message that is no event any more: %s", error)
        return payload
    return msgspec.json.encode(tree)
