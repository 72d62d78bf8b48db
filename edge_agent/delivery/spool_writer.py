"""What the spool is still to be told: messages with their numbers, answers, declarations of losses.

Numbers rise in the order in which messages are stored. What gives way to new messages is declared
in the transaction that drops it, and a message that is set aside in the one that does so. What the
broker took is written for many at once: one sync of the disk.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from edge_agent.delivery import encoding
from edge_agent.delivery import losses as delivery_losses
from edge_agent.delivery.drafts import Draft
from edge_agent.delivery.inbox import RejectedDrafts
from edge_agent.delivery.spool.message import Message, StoredMessage
from edge_agent.delivery.spool.spool import Spool, WriteResult
from edge_agent.frame import GapReason
from edge_agent.messages.events import DefectEvent, Dropped, GapEvent

_log = logging.getLogger(__name__)

_SETTLE_S, _SETTLE_COUNT = 0.2, 500
"""What the broker took is written after so long, or when so many are."""
_OF_MESSAGES = frozenset((GapReason.SPOOL_OVERFLOW, GapReason.SPOOL_LOSS, GapReason.REFUSED))


class SpoolWriter:
    """Used from one thread; the counts may be read from any."""

    def __init__(self, near: Draft, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`near`: what losses are declared near to before there was a frame."""
        self._near, self._clock = near, clock
        self._seq = 0
        self._sent: list[int] = []
        self._aside: list[tuple[int, str]] = []
        self._settle_at_s = math.inf
        self._losses: list[Draft] = []
        self.spooled = self.published = 0
        """Events."""
        self.dropped = 0
        """Messages."""
        self._loss_gaps: Counter[str] = Counter()

    def loss_gaps(self) -> dict[str, int]:
        """Declared losses of messages, by reason."""
        return dict(sorted(self._loss_gaps.items()))

    @property
    def answered(self) -> frozenset[int]:
        """Ids in the spool that it does not know yet to be sent or set aside."""
        return frozenset((*self._sent, *(spool_id for spool_id, _ in self._aside)))

    @property
    def losses_wait(self) -> bool:
        return bool(self._losses)

    # What happens.

    def taken(self, stored: StoredMessage) -> None:
        """The broker has it."""
        self._sent.append(stored.id)
        self._settle_at_s = min(self._settle_at_s, self._clock() + _SETTLE_S)
        self.published += stored.message.kind == "event"

    def put_aside(self, stored: StoredMessage, why: str) -> None:
        message = stored.message
        _log.error("spool: message %s set aside: %s", message.seq or message.kind, why)
        self._aside.append((stored.id, why))
        self._settle_at_s = 0.0
        gap = delivery_losses.refused(message, self._near, why)
        if gap:
            self._losses.append(gap)

    def file_lost(self, name: str) -> None:
        """The spool's file was damaged and has this name now."""
        why = f"the spool's file was damaged and is set aside as {name}"
        self._losses.append(delivery_losses.lost(self._near, GapReason.SPOOL_LOSS, why, None))

    # The spool.

    def enter(
        self, spool: Spool, new: Sequence[Draft], turned_away: RejectedDrafts | None = None
    ) -> None:
        """Store what is new; where nothing is, settle what was answered, if it is time."""
        # Losses first: in one transaction with the setting aside that they declare.
        drafted = [*self._take_losses(), *new]
        if turned_away:
            drafted.append(self._declared(turned_away))
        if drafted:
            self._store(spool, drafted)
        elif self._clock() >= self._settle_at_s or len(self._sent) >= _SETTLE_COUNT:
            self._settle(spool)

    def tend(self, spool: Spool) -> None:
        """Let the spool go back to its disk; what gives way there is declared, and a file that was
        found damaged."""
        before = spool.set_aside
        self._account(spool.tend(self._declare))
        if spool.set_aside != before:
            self.file_lost(spool.set_aside)

    def close(self, spool: Spool) -> None:
        """Whatever is in hand, now."""
        self._store(spool, self._take_losses())

    def _take_losses(self) -> list[Draft]:
        losses, self._losses = self._losses, []
        return losses

    def _declared(self, turned_away: RejectedDrafts) -> Draft:
        count = turned_away.count
        self.dropped += count
        why = f"{count} messages dropped: more than {turned_away.limit} were waiting"
        what = Dropped(messages=count, pictures=0, ranges=())
        return delivery_losses.lost(turned_away.first, GapReason.SPOOL_OVERFLOW, why, what)

    def _store(self, spool: Spool, new: Sequence[Draft]) -> None:
        self._near = new[-1] if new else self._near
        messages: list[Message] = []
        size = 0
        for draft in new:
            if size > spool.max_message_bytes // 2:  # a part that finds room whatever it takes
                self._settle(spool, messages)
                messages, size = [], 0
            made = self._numbered(draft, spool.max_message_bytes // 2)
            messages += made
            size += sum(len(one.payload) for one in made)
        self._settle(spool, messages)

    def _numbered(self, draft: Draft, max_bytes: int) -> tuple[Message, ...]:
        self._seq += 1
        made = encoding.messages(draft, self._seq, max_bytes)
        self.spooled += made[0].kind == "event"
        if isinstance(draft.data, GapEvent) and draft.data.reason in _OF_MESSAGES:
            self._loss_gaps[draft.data.reason.value] += 1
        elif isinstance(draft.data, DefectEvent) and made[0].kind == "gap":
            self._loss_gaps[GapReason.SPOOL_OVERFLOW.value] += 1
            self.dropped += 1
        return made

    def _settle(self, spool: Spool, messages: Sequence[Message] = ()) -> None:
        """Write down what arrived, what the broker took and what it refused."""
        self._settle_at_s = math.inf
        sent, self._sent = self._sent, []
        aside, self._aside = self._aside, []
        if messages or sent or aside:
            self._account(spool.write(messages, sent=sent, aside=aside, declare=self._declare))

    def _account(self, written: WriteResult) -> None:
        self._seq += written.declarations
        self.dropped += written.dropped
        if written.declarations:
            self._loss_gaps[GapReason.SPOOL_OVERFLOW.value] += written.declarations

    def _declare(self, gone: Sequence[Message], before: int) -> Message:
        gap = delivery_losses.overflow(self._near, gone)
        return encoding.messages(gap, self._seq + 1 + before, 1 << 30)[0]
