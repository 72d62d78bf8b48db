"""A camera that goes away and comes back, as one that was silent for a while.

It is closed, and opened anew with growing pauses until that succeeds; opening sets its features.
Whoever grabs waits no longer than he said, and is told of the outage when it is over.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.camera.base import Backend, CameraLost, EndOfStream, LossReason, StreamCounters
from edge_agent.errors import CameraError, EdgeError
from edge_agent.frame import Block

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.25, 10.0


@dataclass(frozen=True, slots=True)
class Outage:
    """The camera was away. What comes after it counts anew. `tries`: openings that failed."""

    reason: str
    detail: str
    began_utc_ns: int
    began_monotonic_ns: int
    tries: int


class ReconnectingBackend:
    def __init__(
        self,
        open_backend: Callable[[], Backend],
        *,
        wait: bool = False,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises CameraError when the camera cannot be opened; with `wait` only for what a person
        has to mend."""
        self._open, self._now_s, self._sleep = open_backend, now_s, sleep
        self._backend: Backend | None = None
        self._outage: Outage | None = None
        self._pause_s, self._retry_at_s = _FIRST_PAUSE_S, 0.0
        self.losses = 0
        self._counted, self._closed = StreamCounters(), StreamCounters()
        self.live = True
        self.first_block_id: int | None = None
        try:
            self._take(open_backend())
        except CameraLost as lost:
            if not wait:
                raise
            self._lose(lost.reason.value, str(lost))

    @property
    def lost(self) -> bool:
        return self._backend is None

    @property
    def outage(self) -> Outage | None:
        """The one that `grab` has not told of yet: it goes on, or the camera is just back."""
        return self._outage

    def grab(self, timeout_s: float) -> Block | Outage | None:
        """As Backend.grab, but without a loss: an Outage comes first when the camera is back."""
        if self._backend is None:
            self._come_back(timeout_s)
            return None
        if self._outage:
            over, self._outage = self._outage, None
            return over
        try:
            block = self._backend.grab(timeout_s)
            self._counted = self._backend.counters()
        except (EndOfStream, KeyboardInterrupt):
            raise
        except CameraLost as lost:
            self._lose(lost.reason.value, str(lost))
            return None
        except Exception as error:  # whatever a camera's library raises, the line goes on
            if not isinstance(error, EdgeError):
                _log.exception("camera")
            self._lose(LossReason.NO_ANSWER.value, _one_line(error))
            return None
        if block is not None:
            self._pause_s = _FIRST_PAUSE_S  # not before: one that opens may still be of no use
        return block

    @property
    def counters(self) -> StreamCounters:
        """Of the backend that is open, as of the last grab."""
        return self._counted

    @property
    def stream(self) -> StreamCounters:
        """Over all that were open; may be read from any thread."""
        return _sum(self._closed, self._counted)

    def close(self) -> None:
        backend, self._backend = self._backend, None
        if backend:
            self._closed = _sum(self._closed, self._counted)
            self._counted = StreamCounters()
            backend.close()

    def _take(self, backend: Backend) -> None:
        self._backend = backend
        self.live, self.first_block_id = backend.live, backend.first_block_id

    def _come_back(self, timeout_s: float) -> None:
        wait_s = self._retry_at_s - self._now_s()
        if wait_s > 0:
            self._sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return
        try:
            self._take(self._open())
        except Exception as error:
            if not isinstance(error, EdgeError):
                _log.exception("camera")
            reason = error.reason.value if isinstance(error, CameraLost) else "refused"
            self._lose(reason, _one_line(error))
            return
        if self._outage:
            away_s = (time.monotonic_ns() - self._outage.began_monotonic_ns) / 1e9
            _log.warning("camera: back after %.1f s", away_s)

    def _lose(self, reason: str, detail: str) -> None:
        try:
            self.close()
        except Exception:
            _log.exception("camera: while it was closed")
        if self._outage is None:
            self.losses += 1
            self._outage = Outage(reason, detail, time.time_ns(), time.monotonic_ns(), 0)
        else:
            old = self._outage
            began = (old.began_utc_ns, old.began_monotonic_ns)
            self._outage = Outage(reason, detail, *began, old.tries + 1)
        # Jitter, so that two hosts who want one camera do not meet for ever.
        wait_s = self._pause_s * random.uniform(0.7, 1.3)  # noqa: S311  not a secret
        self._retry_at_s = self._now_s() + wait_s
        self._pause_s = min(self._pause_s * 2, _MAX_PAUSE_S)
        _log.warning("camera: %s: %s; next try in %.1f s", reason, detail, wait_s)


def _sum(one: StreamCounters, other: StreamCounters) -> StreamCounters:
    def add(a: int | None, b: int | None) -> int | None:
        return a if b is None else b if a is None else a + b

    return StreamCounters(
        lost_blocks=add(one.lost_blocks, other.lost_blocks),
        lost_packets=add(one.lost_packets, other.lost_packets),
        resent_packets=add(one.resent_packets, other.resent_packets),
    )


def _one_line(error: Exception) -> str:
    words = " ".join(str(error).split())[:300]
    return words if isinstance(error, CameraError) else f"{type(error).__name__}: {words}"
