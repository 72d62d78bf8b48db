"""How the camera is, from what comes of it: streaming, impaired or lost.

Impaired is a camera of which at least a tenth of the blocks of the last second (or of the last ten,
if it is slow), and at least two, were of no use or did not fit the encoder; it counts as streaming
again when that has not been so for five seconds. So one lost packet changes nothing, and a
saturated network does not flicker.
"""

from __future__ import annotations

from collections import Counter, deque

from edge_agent.camera.base import CameraStatus

_WINDOW_NS = 1_000_000_000
_HOLD_NS = 5_000_000_000
_SHARE, _LEAST, _KEPT = 0.1, 2, 10
LINE_RATE = "line_rate"


class StreamStatus:
    """Pure: times are passed in."""

    def __init__(self, utc_ns: int) -> None:
        self._window: deque[tuple[int, str, int]] = deque()
        self._blocks: Counter[str] = Counter()
        self._worst_ns = 0
        self.status = CameraStatus("streaming", "", "", utc_ns)

    def blocks(self, reason: str, detail: str, count: int, at_ns: int, utc_ns: int) -> None:
        """`count` blocks of one fate; `reason` is empty for good ones."""
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
                # Of several troubles the first one's name stays while it is there.
                if self.status.state == "impaired" and self._blocks[self.status.reason] > 0:
                    return
                self.status = CameraStatus("impaired", reason, detail, utc_ns)
        elif self.status.state == "impaired" and at_ns - self._worst_ns > _HOLD_NS:
            self.status = CameraStatus("streaming", "", "", utc_ns)

    def lost(self, reason: str, detail: str, utc_ns: int) -> None:
        if (self.status.state, self.status.reason) != ("lost", reason):
            self.status = CameraStatus("lost", reason, detail, utc_ns)

    def back(self, utc_ns: int) -> None:
        """It is open again."""
        self._window.clear()
        self._blocks.clear()
        self.status = CameraStatus("streaming", "", "", utc_ns)
