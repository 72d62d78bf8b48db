"""Status of the camera stream: streaming, impaired or lost."""

from __future__ import annotations

from collections import Counter, deque

from edge_agent.camera.base import CameraStatus

_WINDOW_NS = 1_000_000_000
_HOLD_NS = 5_000_000_000
_SHARE, _LEAST, _KEPT = 0.1, 2, 10
LINE_RATE = "line_rate"


class StreamStatus:
    """State machine of the stream status. Pure: times are arguments.

    The stream becomes impaired if at least a tenth of the blocks of the last second (of the last
    ten blocks at a low rate), and at least two, were unusable or disagreed with the encoder. It
    becomes streaming again after five seconds without that condition. One lost packet therefore
    changes nothing, and the status does not toggle on a saturated network.
    """

    def __init__(self, utc_ns: int) -> None:
        self._window: deque[tuple[int, str, int]] = deque()
        self._blocks: Counter[str] = Counter()
        self._worst_ns = 0
        self.status = CameraStatus("streaming", "", "", utc_ns)

    def blocks(self, reason: str, detail: str, count: int, at_ns: int, utc_ns: int) -> None:
        """Count `count` blocks with the same result; `reason` is empty for good blocks."""
        self._window.append((at_ns, reason, count))
        self._blocks[reason] += count
        while len(self._window) > _KEPT and self._window[0][0] < at_ns - _WINDOW_NS:
            _, old, gone = self._window.popleft()
            self._blocks[old] -= gone
        total = sum(self._blocks.values())
        bad = total - self._blocks[""]
        if reason and bad >= max(_LEAST, _SHARE * total):
            self._worst_ns = at_ns
            if self.status.state != "impaired" or self.status.reason != reason:
                # With several causes the first one stays the reason while it persists.
                if self.status.state == "impaired" and self._blocks[self.status.reason] > 0:
                    return
                self.status = CameraStatus("impaired", reason, detail, utc_ns)
        elif self.status.state == "impaired" and at_ns - self._worst_ns > _HOLD_NS:
            self.status = CameraStatus("streaming", "", "", utc_ns)

    def lost(self, reason: str, detail: str, utc_ns: int) -> None:
        """Set the state to lost."""
        if (self.status.state, self.status.reason) != ("lost", reason):
            self.status = CameraStatus("lost", reason, detail, utc_ns)

    def back(self, utc_ns: int) -> None:
        """Set the state to streaming after the camera has been reopened."""
        self._window.clear()
        self._blocks.clear()
        self.status = CameraStatus("streaming", "", "", utc_ns)
