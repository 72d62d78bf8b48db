"""Drafts to numbered messages, and the gaps that say which messages were lost. Pure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from edge_agent import dropped
from edge_agent.events import DefectEvent, Dropped, GapEvent, SeqRange, envelope
from edge_agent.frame import GapReason
from edge_agent.store import PICTURE, Message

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """An event or gap that has no number yet; numbers are given in the order of the spool.

    `picture`, called when it is spooled, makes a JPEG of the frame, sent behind the event.
    """

    data: DefectEvent | GapEvent
    captured_utc_ns: int
    picture: Callable[[], bytes] | None = None


class _Origin(msgspec.Struct, frozen=True):
    agent: str
    site: str
    line: str
    coil: str
    boot_id: str
    seq: int
    frame_id: int
    first_line: int
    captured_monotonic_ns: int
    reason: str = ""


class _Envelope(msgspec.Struct, frozen=True):
    data: _Origin


def messages(draft: Draft, seq: int, max_bytes: int) -> tuple[Message, ...]:
    """The draft as message `seq`, and its picture; one that is too large becomes a gap."""
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
    except Exception as error:  # OpenCV's own; the event must not be lost with its picture
        _log.error("evidence: frame %d has no picture: %s", draft.data.frame_id, error)
        return b""


def lost(
    near: Draft, reason: GapReason, detail: str, what: Dropped | None, utc_ns: int | None = None
) -> Draft:
    """A gap at the place of `near`, the message that tells best where on the strip it was."""
    data = near.data
    gap = GapEvent(
        agent=data.agent,
        site=data.site,
        line=data.line,
        coil=data.coil,
        boot_id=data.boot_id,
        seq=0,
        replayed=False,
        frame_id=data.frame_id,
        first_line=data.first_line,
        captured_monotonic_ns=data.captured_monotonic_ns,
        line_count=None,
        reason=reason,
        detail=detail,
        dropped=what,
    )
    return Draft(gap, near.captured_utc_ns if utc_ns is None else utc_ns)


def overflow(near: Draft, gone: Sequence[Message]) -> Draft:
    """The spool is full and `gone` gave way."""
    what = dropped.declared(gone)
    detail = (
        f"{what.messages} messages and {what.pictures} pictures dropped, oldest first: "
        "the spool is full"
    )
    return lost(near, GapReason.SPOOL_OVERFLOW, detail, what)


def nowhere(topic_base: str, boot_id: str) -> Draft:
    """What losses are declared near to before this run has had a frame."""
    *_, site, line, agent = topic_base.split("/")
    gap = GapEvent(
        agent=agent,
        site=site,
        line=line,
        coil="",
        boot_id=boot_id,
        seq=0,
        replayed=False,
        frame_id=0,
        first_line=0,
        captured_monotonic_ns=time.monotonic_ns(),
        line_count=None,
        reason=GapReason.SPOOL_LOSS,
        detail="",
    )
    return Draft(gap, time.time_ns())


def refused(message: Message, near: Draft, why: str) -> Draft | None:
    """The broker does not take `message`. None for a gap that said so: that would have no end."""
    what = Dropped(messages=0, pictures=1, ranges=())
    if not message.kind.startswith(PICTURE):
        try:
            origin = msgspec.json.decode(message.payload, type=_Envelope).data
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if origin.reason == GapReason.REFUSED.value:
            return None
        seq = SeqRange(boot_id=origin.boot_id, first_seq=origin.seq, last_seq=origin.seq)
        what = Dropped(messages=1, pictures=0, ranges=(seq,))
    return lost(near, GapReason.REFUSED, f"set aside: {why}", what)


def says_refused(message: Message) -> bool:
    """Whether it is a gap that declares messages the broker did not take."""
    if message.kind != "gap":
        return False
    try:
        origin = msgspec.json.decode(message.payload, type=_Envelope).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return origin.reason == GapReason.REFUSED.value


def replayed(payload: bytes) -> bytes:
    """The same event with `replayed` true."""
    try:
        tree = msgspec.json.decode(payload)
        tree["data"]["replayed"] = True
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError, RecursionError) as error:
        # Damaged on the disk where SQLite cannot see it. It goes out as it is: subscribers refuse
        # it by the schema, and the messages behind it must not wait for ever.
        _log.error("spool: a message that is no event any more: %s", error)
        return payload
    return msgspec.json.encode(tree)
