"""Interfaces of camera and backend. Backend -> reconnect -> ledger -> frame cutter -> pipeline.

A backend delivers blocks and reports loss; it neither counts lines, retries nor checks images.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from edge_agent.errors import CameraError
from edge_agent.frame import Block, Frame, Gap


class EndOfStream(Exception):
    """End of the frames: the folder or file has no more."""


class LossReason(str, Enum):
    """Reason why a camera delivers no more blocks."""

    NOT_FOUND = "not_found"
    """No device exists at the name, address or path."""
    NO_ANSWER = "no_answer"
    """The camera was connected and no longer responds: cable, power, reboot."""
    CONTROL_TAKEN = "control_taken"
    """Another host or program controls the camera."""
    NO_DATA = "no_data"
    """The camera responds but delivers no blocks: ended stream or saturated network."""


class CameraLost(CameraError):
    """Loss of the camera that may be temporary: reopening it may help.

    A plain CameraError, in contrast, needs a person: a missing feature, a value out of range.
    """

    def __init__(self, reason: LossReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StreamCounters:
    """Counters of the stream since the backend was opened; None if it does not count.

    `lost_blocks` counts blocks that the camera sent or acquired and `grab` did not return.
    `lost_packets` counts packets that stayed missing after all resend requests.
    """

    lost_blocks: int | None = None
    lost_packets: int | None = None
    resent_packets: int | None = None


class Backend(Protocol):
    """Open camera, used from one thread. Its constructor opens, configures and starts it.

    The constructor raises CameraLost if a retry may help, else CameraError. A lost backend is
    closed and a new one created, any number of times: `close` must leave no thread, socket or file
    open.
    """

    live: bool
    """True: blocks arrive at the camera's rate. False: the next block waits for `grab`."""

    first_block_id: int | None
    """Id of the first block after the start, or None if unknown.

    The ledger needs it to detect the loss of the very first blocks.
    """

    def grab(self, timeout_s: float) -> Block | None:
        """Return the next block, complete or not, in order of arrival; None after `timeout_s`.

        A strip at standstill gives no blocks and no error.

        Raises:
            EndOfStream: The last block has been returned.
            CameraLost: The camera is lost; raised within 2 s of the loss.
        """
        ...

    def counters(self) -> StreamCounters:
        """Return the stream's counters; cheap enough to call after each block."""
        ...

    def close(self) -> None:
        """Release the camera. May be called twice, and after CameraLost."""
        ...


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """State of the camera. `reason` is a LossReason, a GapReason or "line_rate"; "" if streaming.

    `impaired` means that blocks arrive, but some are missing or unusable.
    """

    state: Literal["streaming", "impaired", "lost"]
    reason: str
    detail: str
    since_utc_ns: int


@dataclass(frozen=True, slots=True)
class CameraCounts:
    """Counts since the run began.

    `blocks_taken` counts arrived blocks; `blocks_rejected` counts those of them that became gaps,
    by GapReason. Its key "line_rate" counts blocks that disagree with the encoder but were
    inspected.
    """

    losses: int
    blocks_taken: int
    blocks_missing: int
    blocks_duplicate: int
    blocks_late: int
    blocks_rejected: dict[str, int]
    packets_lost: int | None
    packets_resent: int | None


class Camera(Protocol):
    """Camera as the pipeline uses it, from one thread: each line is in one Frame or Gap, once."""

    @property
    def live(self) -> bool:
        """Return `Backend.live`: if True, a frame without queue space is lost; else it waits."""
        ...

    @property
    def status(self) -> CameraStatus:
        """Return the camera's state. May be called from any thread."""
        ...

    @property
    def counts(self) -> CameraCounts:
        """Return the counts of the run. May be called from any thread."""
        ...

    def grab(self, timeout_s: float) -> Frame | Gap | None:
        """Return the next frame, or the gap in its place; None after `timeout_s`.

        Waits for a lost camera to return. Raises EndOfStream after the last frame.
        """
        ...

    def drain(self) -> list[Frame | Gap]:
        """End the capture; return the frames and gaps that `grab` has not returned yet."""
        ...

    def close(self) -> None:
        """Release the camera. May be called twice."""
        ...
