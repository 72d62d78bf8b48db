"""Reconnection of a lost camera.

A lost camera is closed and reopened with growing pauses; opening it sets its features again.
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
    """Loss of the camera, now over or still in progress; block ids restart after it.

    `tries` is the number of failed attempts to reopen the camera.
    """

    reason: str
    detail: str
    began_utc_ns: int
    began_monotonic_ns: int
    tries: int


class ReconnectingBackend:
    """Backend that reopens a lost camera and reports each outage once, after its end.

    `grab` never waits longer than its timeout, also while the camera is lost.
    """

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        *,
        wait: bool = False,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open the camera.

        Raises CameraError if it cannot be opened; with `wait`, only for errors that need a person.
        """
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
        """Return True while the camera is lost."""
        return self._backend is None

    @property
    def outage(self) -> Outage | None:
        """Return the outage that `grab` has not returned yet: in progress or just over."""
        return self._outage

    def grab(self, timeout_s: float) -> Block | Outage | None:
        """Return the next block as `Backend.grab`; an `Outage` comes first after a reconnection.

        Never raises for a loss: returns None while the camera is lost. Raises EndOfStream after the
        last block.
        """
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
        except Exception as error:  # a camera library may raise any type; the agent must continue
            if not isinstance(error, EdgeError):
                _log.exception("camera")
            self._lose(LossReason.NO_ANSWER.value, _one_line(error))
            return None
        if block is not None:
            self._pause_s = _FIRST_PAUSE_S  # only now: a camera that opens may still give no blocks
        return block

    @property
    def counters(self) -> StreamCounters:
        """Return the counters of the open backend as of the last `grab`."""
        return self._counted

    @property
    def stream(self) -> StreamCounters:
        """Return the sum over all backends of the run; may be called from any thread."""
        return _sum(self._closed, self._counted)

    def close(self) -> None:
        """Close the backend. May be called twice."""
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
        # Jitter: two hosts that compete for one camera must not retry in step forever.
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
