"""Conversion of a camera's clock to UTC."""

from __future__ import annotations

from collections import deque
from typing import Literal

_SECOND_NS = 1_000_000_000
_TAI_MINUS_UTC_NS = 37 * _SECOND_NS  # since 2017
_SLICE_NS, _SLICES = 10 * _SECOND_NS, 6


class ClockMap:
    """Mapping of the camera's clock to UTC for one session.

    A clock set by PTP is used as it is, or minus the leap seconds if it counts TAI, provided that
    it is within one second of the host's clock. A free clock is aligned by the fastest blocks: a
    block can arrive late but never early, so the smallest difference within the last minute is the
    offset. The sliding window follows a clock that drifts.

    A reopened camera needs a new instance, because its clock may restart at 0.
    """

    def __init__(self) -> None:
        self._slices: deque[tuple[int, int]] = deque(maxlen=_SLICES)  # (start, least difference)

    def utc_ns(self, camera_ns: int | None, clock: Literal["free", "ptp"], host_utc_ns: int) -> int:
        """Return the UTC time of a block with timestamp `camera_ns` received at `host_utc_ns`."""
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
