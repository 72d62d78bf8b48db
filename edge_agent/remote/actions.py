"""What a command over MQTT can do to the agent (remote.Line), and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.config.config import Config
from edge_agent.frame import Image
from edge_agent.messages import health as messages_health
from edge_agent.pipeline.pipeline import Pipeline
from edge_agent.remote.commands import CommandRefused
from edge_agent.supervision.state_document import StateKeeper
from edge_agent.update import staging
from edge_agent.update.bundle_store import BundleStore

_PICTURE_S = 5.0


class AgentActions:
    """Called in the commands' thread."""

    def __init__(
        self,
        config: Config,
        slots: BundleStore,
        pipeline: Pipeline,
        state_keeper: StateKeeper,
        health: Callable[[], messages_health.HealthDocument],
    ) -> None:
        self._config, self._slots = config, slots
        self._pipeline, self._state_keeper, self._health = pipeline, state_keeper, health

    def status(self) -> dict[str, Any]:
        return {
            "state": msgspec.to_builtins(self._state_keeper.document()),
            "health": msgspec.to_builtins(self._health()),
            "coil": self._pipeline.coil,
        }

    def picture(self) -> tuple[int, Image]:
        frame = self._pipeline.next_frame(_PICTURE_S)
        if frame is None:
            raise CommandRefused(
                f"picture: no frame within {_PICTURE_S:.0f} s; does the strip move?"
            )
        return frame.frame_id, frame.image

    def set_coil(self, coil: str) -> None:
        self._pipeline.set_coil(coil)

    def start(self) -> None:
        """From the next frame on; said in the state document, and so is `stop`."""
        self._pipeline.resume()
        self._state_keeper.inspects(True)

    def stop(self) -> None:
        self._pipeline.suspend("stopped by a command")
        self._state_keeper.inspects(False)

    def stage(self, folder: Path) -> str:
        record = staging.stage(self._config, self._slots, folder)
        return record.candidate.sha256 if record.candidate else ""
