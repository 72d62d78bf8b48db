"""Actions that commands over MQTT can perform on the agent (commands.CommandTarget)."""

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
    """Actions on the agent, called in the thread of the command receiver."""

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
        """Return the state document, the health document and the coil."""
        return {
            "state": msgspec.to_builtins(self._state_keeper.document()),
            "health": msgspec.to_builtins(self._health()),
            "coil": self._pipeline.coil,
        }

    def picture(self) -> tuple[int, Image]:
        """Return number and image of the next frame.

        Raises:
            CommandRefused: no frame arrives within 5 s.
        """
        frame = self._pipeline.next_frame(_PICTURE_S)
        if frame is None:
            raise CommandRefused(
                f"picture: no frame within {_PICTURE_S:.0f} s; does the strip move?"
            )
        return frame.frame_id, frame.image

    def set_coil(self, coil: str) -> None:
        """Set the coil of frames judged from now on."""
        self._pipeline.set_coil(coil)

    def start(self) -> None:
        """Restart the inspection from the next frame on, and update the state document."""
        self._pipeline.resume()
        self._state_keeper.inspects(True)

    def stop(self) -> None:
        """Stop the inspection and update the state document."""
        self._pipeline.suspend("stopped by a command")
        self._state_keeper.inspects(False)

    def stage(self, folder: Path) -> str:
        """Stage the bundle in `folder`.

        Returns:
            The candidate's sha256, or "" if there is no candidate.

        Raises:
            EdgeError: the bundle is invalid or not allowed.
        """
        record = staging.stage(self._config, self._slots, folder)
        return record.candidate.sha256 if record.candidate else ""
