"""Which messages were lost, as ranges of their numbers: what a gap of our own making declares."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import msgspec

from edge_agent.events import CloudEvent, Dropped, GapEvent, SeqRange
from edge_agent.store import PICTURE, Message

MAX_RANGES = 200


def declared(messages: Sequence[Message]) -> Dropped:
    """With what the lost gaps among them had declared themselves."""
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
    """Sorted, joined where they touch; where there are too many, the nearest are joined too."""
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
            return tuple(found[-MAX_RANGES:])  # as many boots: the oldest are history
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
