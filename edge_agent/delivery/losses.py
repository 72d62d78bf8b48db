"""Gaps that declare lost messages, as ranges of message numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import msgspec

from edge_agent.clock import SYSTEM, Clock
from edge_agent.delivery.drafts import Draft
from edge_agent.delivery.spool.message import PICTURE, Message
from edge_agent.frame import GapReason
from edge_agent.messages.events import (
    CloudEvent,
    Dropped,
    GapEvent,
    SeqRange,
)


class _Origin(msgspec.Struct, frozen=True):
    """Fields of a stored event or gap that a loss declaration needs."""

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
    """CloudEvent reduced to its data."""

    data: _Origin


def lost(
    near: Draft, reason: GapReason, detail: str, what: Dropped | None, utc_ns: int | None = None
) -> Draft:
    """Build the draft of a gap that declares lost messages.

    Args:
        near: message that gives the best known place on the strip.
        reason: reason of the gap.
        detail: text for people.
        what: the lost messages, or None if unknown.
        utc_ns: time of the gap, ns since 1970; that of `near` by default.
    """
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
    """Build the gap that declares messages `gone`, dropped because the spool is full."""
    what = declared(gone)
    detail = (
        f"{what.messages} messages and {what.pictures} pictures dropped, oldest first: "
        "the spool is full"
    )
    return lost(near, GapReason.SPOOL_OVERFLOW, detail, what)


def nowhere(topic_base: str, boot_id: str, clock: Clock = SYSTEM) -> Draft:
    """Build the draft that gives the place of losses before the first frame of a run."""
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
        captured_monotonic_ns=clock.monotonic_ns(),
        line_count=None,
        reason=GapReason.SPOOL_LOSS,
        detail="",
    )
    return Draft(gap, clock.utc_ns())


def refused(message: Message, near: Draft, why: str) -> Draft | None:
    """Build the gap that declares a message refused by the broker.

    Returns:
        The gap, or None if `message` cannot be decoded or itself declares refused messages: that
        chain would never end.
    """
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
    """Return True if `message` is a gap that declares messages the broker refused."""
    if message.kind != "gap":
        return False
    try:
        origin = msgspec.json.decode(message.payload, type=_Envelope).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return origin.reason == GapReason.REFUSED.value


MAX_RANGES = 200


def declared(messages: Sequence[Message]) -> Dropped:
    """Return the losses of `messages`, with those that gaps among them had declared."""
    numbers: list[SeqRange] = []
    count = pictures = 0
    for message in messages:
        if message.kind.startswith(PICTURE):
            pictures += 1
            continue
        count += 1
        if message.seq:
            number = message.seq
            numbers.append(SeqRange(boot_id=message.boot_id, first_seq=number, last_seq=number))
        before = _inherited(message) if message.kind == "gap" else None
        if before is not None:
            numbers += before.ranges
            count += before.messages
            pictures += before.pictures
    return Dropped(messages=count, pictures=pictures, ranges=merged(numbers))


def merged(ranges: Iterable[SeqRange]) -> tuple[SeqRange, ...]:
    """Return the ranges sorted and joined where they touch.

    Above MAX_RANGES, the nearest ranges of the same boot are joined too; with more boots than that,
    only the last ranges stay.
    """
    found: list[SeqRange] = []
    for one in sorted(ranges, key=lambda r: (r.boot_id, r.first_seq)):
        last = found[-1] if found else None
        if last and last.boot_id == one.boot_id and one.first_seq <= last.last_seq + 1:
            found[-1] = _spanning(last, one)
        else:
            found.append(one)
    while len(found) > MAX_RANGES:
        gaps = [
            (b.first_seq - a.last_seq, at)
            for at, (a, b) in enumerate(itertools.pairwise(found))
            if a.boot_id == b.boot_id
        ]
        if not gaps:
            return tuple(found[-MAX_RANGES:])  # a single range per boot is left
        _, at = min(gaps)
        found[at : at + 2] = [_spanning(found[at], found[at + 1])]
    return tuple(found)


def _spanning(a: SeqRange, b: SeqRange) -> SeqRange:
    return SeqRange(boot_id=a.boot_id, first_seq=a.first_seq, last_seq=max(a.last_seq, b.last_seq))


def _inherited(message: Message) -> Dropped | None:
    try:
        return msgspec.json.decode(message.payload, type=CloudEvent[GapEvent]).data.dropped
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
