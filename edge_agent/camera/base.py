"""What a backend promises, and what the pipeline gets from it.

    backend ▶ returning ▶ ledger ▶ cutter ▶ pipeline
    Block     Block       lines    Frame or Gap
              or Outage   or hole

A backend gives blocks and says when its camera is gone. `returning` opens it again, `ledger` counts
blocks and lines and finds what is missing, `cutter` cuts frames of the bundle's height. So a
backend does not count lines, does not retry, and does not judge images.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from edge_agent.errors import CameraError
from edge_agent.frame import Block, Frame, Gap


class EndOfStream(Exception):
    """There will be no more frames: the folder is through."""


class LossReason(str, Enum):
    """Why a camera gives nothing more."""

    NOT_FOUND = "not_found"
    """Nothing answers to the name, address or path."""
    NO_ANSWER = "no_answer"
    """It was there and does not answer any more: cable, power, reboot."""
    CONTROL_TAKEN = "control_taken"
    """Another host or program has control of it."""
    NO_DATA = "no_data"
    """It answers, but no block comes though it should: a stream that ended, a saturated network."""


class CameraLost(CameraError):
    """The camera is gone, for now: opening it again may help.

    A plain CameraError, in contrast, is for a person: a feature it has not, a value out of range.
    """

    def __init__(self, reason: LossReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StreamCounters:
    """What the stream has counted since the backend was opened; None where it does not count.

    `lost_blocks`: the camera sent them, or made them, and `grab` gave nothing for them.
    `lost_packets`: of those, the ones that stayed missing.
    """

    lost_blocks: int | None = None
    lost_packets: int | None = None
    resent_packets: int | None = None


class Backend(Protocol):
    """An open camera, used from one thread. Its constructor opens it, sets features and starts.

    The constructor raises CameraLost where waiting may help, else CameraError. A backend that is
    gone is closed and a new one made, a thousand times if need be: `close` leaves no thread, socket
    or file behind.
    """

    live: bool
    """True: blocks come whether we are ready or not. False: the next one waits to be asked for."""

    first_block_id: int | None
    """The id of the first block after the start, so that one lost at once is missed; None where
    that is not known."""

    def grab(self, timeout_s: float) -> Block | None:
        """The next block, complete or not, in the order it came; None when none came in time.

        A strip that stands still gives no blocks, and no error. Raises EndOfStream after the last
        one, CameraLost when the camera is gone: within 2 s of it.
        """
        ...

    def counters(self) -> StreamCounters:
        """Cheap enough to be asked after each block."""
        ...

    def close(self) -> None:
        """Let go of the camera. May be called twice, and after CameraLost."""
        ...


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """How the camera is. `reason` is a LossReason, a GapReason or "line_rate"; "" if streaming.

    `impaired`: blocks come, but part of them is missing or cannot be used.
    """

    state: Literal["streaming", "impaired", "lost"]
    reason: str
    detail: str
    since_utc_ns: int


@dataclass(frozen=True, slots=True)
class CameraCounts:
    """Since the run began. `blocks_taken` are those that came, of which `blocks_rejected`, by
    GapReason, were declared; among these "line_rate" counts blocks that did not fit the encoder,
    and were inspected."""

    losses: int
    blocks_taken: int
    blocks_missing: int
    blocks_duplicate: int
    blocks_late: int
    blocks_rejected: dict[str, int]
    packets_lost: int | None
    packets_resent: int | None


class Camera(Protocol):
    """What the pipeline uses, from one thread: every line in a Frame or in a Gap, once."""

    @property
    def live(self) -> bool:
        """As of the Backend: a frame that finds no room is lost, or waits."""
        ...

    @property
    def status(self) -> CameraStatus:
        """May be read from any thread."""
        ...

    @property
    def counts(self) -> CameraCounts:
        """May be read from any thread."""
        ...

    def grab(self, timeout_s: float) -> Frame | Gap | None:
        """The next frame, or the Gap in its place; None when none came within `timeout_s`.

        Raises EndOfStream after the last one. A camera that is gone is waited for.
        """
        ...

    def drain(self) -> list[Frame | Gap]:
        """What was taken and not given out yet, when no more is wanted."""
        ...

    def close(self) -> None:
        """Let go of the camera. May be called twice."""
        ...
