"""Spool writer: numbers messages, stores them, and records broker answers and losses.

Numbers rise in storage order. A drop and its declaration share a transaction, as do a dead letter
and its declaration. Acknowledgements are written in batches, to save syncs of the disk.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence

from edge_agent.clock import SYSTEM, Clock
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
"""Acknowledgements are written after this time in s, or at this number."""
_OF_MESSAGES = frozenset((GapReason.SPOOL_OVERFLOW, GapReason.SPOOL_LOSS, GapReason.REFUSED))


class SpoolWriter:
    """Writer to the spool, used from one thread; its counts may be read from any."""

    def __init__(self, spool: Spool, near: Draft, *, clock: Clock = SYSTEM) -> None:
        """Use `near` as the place of losses declared before the first frame."""
        self._spool, self._near, self._clock = spool, near, clock
        self._seq = 0
        self._sent: list[int] = []
        self._aside: list[tuple[int, str]] = []
        self._settle_at_s = math.inf
        self._losses: list[Draft] = []
        self.spooled = self.published = 0
        """Number of events."""
        self.dropped = 0
        """Number of messages."""
        self._loss_gaps: Counter[str] = Counter()
        if spool.set_aside:  # quarantined when it was opened
            self.file_lost(spool.set_aside)

    def loss_gaps(self) -> dict[str, int]:
        """Return the number of declared losses of messages, by reason."""
        return dict(sorted(self._loss_gaps.items()))

    @property
    def answered(self) -> frozenset[int]:
        """Ids that the broker has answered but that are still unsent in the spool."""
        return frozenset((*self._sent, *(spool_id for spool_id, _ in self._aside)))

    @property
    def losses_wait(self) -> bool:
        """True if losses wait to be declared."""
        return bool(self._losses)

    # Events to record.

    def taken(self, stored: StoredMessage) -> None:
        """Record that the broker accepted `stored`."""
        self._sent.append(stored.id)
        self._settle_at_s = min(self._settle_at_s, self._clock.monotonic_s() + _SETTLE_S)
        self.published += stored.message.kind == "event"

    def put_aside(self, stored: StoredMessage, why: str) -> None:
        """Make `stored` a dead letter with the reason `why`, and declare the loss."""
        message = stored.message
        _log.error("spool: message %s set aside: %s", message.seq or message.kind, why)
        self._aside.append((stored.id, why))
        self._settle_at_s = 0.0
        gap = delivery_losses.refused(message, self._near, why)
        if gap:
            self._losses.append(gap)

    def file_lost(self, name: str) -> None:
        """Declare the loss of a damaged spool file, quarantined as `name`."""
        why = f"the spool's file was damaged and is set aside as {name}"
        self._losses.append(delivery_losses.lost(self._near, GapReason.SPOOL_LOSS, why, None))

    # Writes to the spool.

    def enter(self, new: Sequence[Draft], turned_away: RejectedDrafts | None = None) -> None:
        """Store new drafts; if there are none, write due acknowledgements.

        `turned_away` are drafts that the inbox rejected; their loss is declared.
        """
        # Losses first, in the same transaction as the dead letters that they declare.
        drafted = [*self._take_losses(), *new]
        if turned_away:
            drafted.append(self._declared(turned_away))
        if drafted:
            self._store(drafted)
        elif self._clock.monotonic_s() >= self._settle_at_s or len(self._sent) >= _SETTLE_COUNT:
            self._settle()

    def tend(self) -> None:
        """Let the spool move back to its disk if it works again.

        Declare messages dropped on the way, and a file that was found damaged.
        """
        before = self._spool.set_aside
        self._account(self._spool.tend(self._declare))
        if self._spool.set_aside != before:
            self.file_lost(self._spool.set_aside)

    def close(self) -> None:
        """Write all pending changes, with a last attempt to use a failed disk."""
        self._spool.hurry()
        self.tend()
        self._store(self._take_losses())

    def _take_losses(self) -> list[Draft]:
        losses, self._losses = self._losses, []
        return losses

    def _declared(self, turned_away: RejectedDrafts) -> Draft:
        count = turned_away.count
        self.dropped += count
        why = f"{count} messages dropped: more than {turned_away.limit} were waiting"
        what = Dropped(messages=count, pictures=0, ranges=())
        return delivery_losses.lost(turned_away.first, GapReason.SPOOL_OVERFLOW, why, what)

    def _store(self, new: Sequence[Draft]) -> None:
        self._near = new[-1] if new else self._near
        messages: list[Message] = []
        size = 0
        for draft in new:
            # Write in parts small enough to fit in every case.
            if size > self._spool.max_message_bytes // 2:
                self._settle(messages)
                messages, size = [], 0
            made = self._numbered(draft, self._spool.max_message_bytes // 2)
            messages += made
            size += sum(len(one.payload) for one in made)
        self._settle(messages)

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

    def _settle(self, messages: Sequence[Message] = ()) -> None:
        """Write new messages, acknowledgements and dead letters in one transaction."""
        self._settle_at_s = math.inf
        sent, self._sent = self._sent, []
        aside, self._aside = self._aside, []
        if messages or sent or aside:
            written = self._spool.write(messages, sent=sent, aside=aside, declare=self._declare)
            self._account(written)

    def _account(self, written: WriteResult) -> None:
        self._seq += written.declarations
        self.dropped += written.dropped
        if written.declarations:
            self._loss_gaps[GapReason.SPOOL_OVERFLOW.value] += written.declarations

    def _declare(self, gone: Sequence[Message], before: int) -> Message:
        gap = delivery_losses.overflow(self._near, gone)
        return encoding.messages(gap, self._seq + 1 + before, 1 << 30)[0]
