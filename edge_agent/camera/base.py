"""What the pipeline needs of a camera."""

from __future__ import annotations

from typing import Protocol

from edge_agent.frame import Frame, Gap


class EndOfStream(Exception):
    """There will be no more frames: the folder is through."""


class Camera(Protocol):
    """A source of frames, used from one thread."""

    live: bool
    """True: frames come whether we are ready or not, and one that finds no room is lost.
    False: the next frame waits until it is asked for."""

    def grab(self, timeout_s: float) -> Frame | Gap | None:
        """The next frame, or the Gap in its place; None when none came within `timeout_s`.

        Raises EndOfStream after the last one, CameraError when the camera is gone.
        """
        ...

    def close(self) -> None:
        """Let go of the camera. May be called twice."""
        ...
