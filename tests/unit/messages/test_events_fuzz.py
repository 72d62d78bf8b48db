"""Events read back, bit by bit not what was written: errors, never crashes.

What comes from a spool's file or over a broker may be anything. 100,000 cases each, seeds fixed:
a third of them garbage, the rest a true event or gap with bytes flipped, cut out or put in.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from edge_agent.delivery import encoding, losses
from edge_agent.delivery.spool.message import Message
from edge_agent.delivery.subscriber import decode, line
from edge_agent.frame import GapReason
from edge_agent.messages.events import Dropped, GapEvent, SeqRange, envelope

CASES = 100_000

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def _gap() -> bytes:
    data = GapEvent(
        agent="agent",
        site="site",
        line="line",
        coil="",
        boot_id="b" * 32,
        seq=7,
        replayed=False,
        frame_id=3,
        first_line=768,
        captured_monotonic_ns=1,
        line_count=None,
        reason=GapReason.SPOOL_OVERFLOW,
        detail="2 messages",
        dropped=Dropped(
            messages=2,
            pictures=0,
            ranges=(SeqRange(boot_id="b" * 32, first_seq=1, last_seq=2),),
        ),
    )
    return msgspec.json.encode(envelope(data, 1_700_000_000_000_000_000))


_PIECES = (b"{", b"}", b"[", b"]", b'"', b"null", b"1e999", b"-1", b"\\ud800", b"\xff", b"0" * 40)


def _damaged(draw: random.Random, text: bytes) -> bytes:
    if draw.random() < 1 / 3:
        return b"".join(draw.choices(_PIECES, k=draw.randrange(40)))
    found = bytearray(text)
    for _ in range(draw.randrange(1, 4)):
        at, how = draw.randrange(len(found)), draw.randrange(3)
        if how == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            del found[at : at + draw.randrange(1, 30)]
        else:
            found[at:at] = draw.choice(_PIECES)
        if not found:
            break
    return bytes(found)


def test_a_subscriber_refuses_in_words() -> None:
    draw, text, understood = random.Random(1), _gap(), 0
    for _ in range(CASES):
        payload = _damaged(draw, text)
        for topic in ("a/event", "a/gap"):
            try:
                found = decode(topic, payload)
            except (msgspec.DecodeError, ValueError, RecursionError):
                continue
            understood += 1
            assert "\n" not in line(found) or b"\\n" in payload
    assert understood > 1000, "some changes are within a text, and harmless"


def test_the_spools_own_reading_goes_on() -> None:
    """Marking as replayed, declaring what gave way or was refused: whatever lies there."""
    draw, text, inherited = random.Random(2), _gap(), 0
    near = losses.nowhere("linegate/site/line/agent", "b" * 32)
    for _ in range(CASES):
        message = Message("gap", "b" * 32, _damaged(draw, text), 7)
        encoding.replayed(message.payload)
        losses.says_refused(message)
        what = losses.declared([message])
        assert what.messages >= 1
        assert any(one.first_seq <= 7 <= one.last_seq for one in what.ranges)
        inherited += len(what.ranges) > 1 or what.messages > 1
        gap = losses.refused(message, near, "why")
        if gap is not None:
            assert encoding.messages(gap, 8, 1 << 20)
    assert inherited > 1000
