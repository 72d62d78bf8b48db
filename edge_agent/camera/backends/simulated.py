"""Line camera backend for the simulated strip."""

from __future__ import annotations

import time

from edge_agent.camera.base import StreamCounters
from edge_agent.config.camera import SimulatedCamera
from edge_agent.frame import Block, LineSpan
from edge_agent.simulation.rolled_steel import strip_of


class SimulatedBackend:
    """Endless simulated camera, whose encoder counts lines.

    In real time, a block is ready when its last line has passed under the camera.
    """

    first_block_id: int | None = 0

    def __init__(self, config: SimulatedCamera) -> None:
        self.live = config.realtime
        self._config, self._strip = config, strip_of(config)
        self._block_id = 0
        self._ready_s = time.monotonic()

    def grab(self, timeout_s: float) -> Block | None:
        """Return the next block; None if it is not ready within `timeout_s`."""
        first = self._block_id * self._config.height_px
        if self._config.realtime:
            period_s = self._strip.line_period_s(first) / self._config.speed
            ready_s = self._ready_s + period_s * self._config.height_px
            wait_s = ready_s - time.monotonic()
            time.sleep(max(0.0, min(wait_s, timeout_s)))
            if wait_s > timeout_s:
                return None
            self._ready_s = ready_s
        image = self._strip.render(first, self._config.height_px)
        block = Block(
            data=image,
            pixel_format="Mono8",
            width_px=self._config.width_px,
            span=LineSpan(
                first_line=0,
                line_count=self._config.height_px,
                captured_utc_ns=time.time_ns(),
                captured_monotonic_ns=time.monotonic_ns(),
                encoder_count=first,
            ),
            block_id=self._block_id,
        )
        self._block_id += 1
        return block

    def counters(self) -> StreamCounters:
        """Return the counters: no block is ever lost."""
        return StreamCounters(lost_blocks=0)

    def close(self) -> None:
        """Do nothing: the simulation holds no resource."""
