"""A camera's clock to UTC.

A clock set by PTP is believed as it is, or without the leap seconds where it counts TAI, if it is
within a second of ours. A free clock is laid on ours by the blocks that came fastest: a block can
arrive late, never early, so that the least difference seen within a minute is the offset, and a
clock that drifts is followed.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

_SECOND_NS = 1_000_000_000
_TAI_MINUS_UTC_NS = 37 * _SECOND_NS  # since 2017
_SLICE_NS, _SLICES = 10 * _SECOND_NS, 6


class ClockMap:
    """Of one session: a camera that was opened again may have begun at 0."""

    def __init__(self) -> None:
        self._slices: deque[tuple[int, int]] = deque(maxlen=_SLICES)  # (begun at, least difference)

    def utc_ns(self, camera_ns: int | None, clock: Literal["free", "ptp"], host_utc_ns: int) -> int:
        """Of a block with this timestamp that arrived at `host_utc_ns`."""
        if camera_ns is None:
            return host_utc_ns
        behind = host_utc_ns - camera_ns
        if clock == "ptp":
            for scale_ns in (0, -_TAI_MINUS_UTC_NS):
                if abs(behind - scale_ns) < _SECOND_NS:
                    return camera_ns + scale_ns
        if not self._slices or camera_ns - self._slices[-1][0] >= _SLICE_NS:
            self._slices.append((camera_ns, behind))
        else:
            begun, least = self._slices[-1]
            self._slices[-1] = (begun, min(least, behind))
        return camera_ns + min(least for _, least in self._slices)
