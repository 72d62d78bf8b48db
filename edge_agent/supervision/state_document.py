"""State document: running bundle, camera status, inspection on or off, progress of an update.

Each part is set from its own thread, and each change is published at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_agent.camera import CameraStatus
from edge_agent.inspection.models import LoadedBundle
from edge_agent.messages import events, state
from edge_agent.update.record import BundleSlot, UpdateRecord
from edge_agent.version import VERSION


class StateKeeper:
    """Keeper of the state document; its setters may be called from any thread."""

    def __init__(
        self,
        boot_id: str,
        stages: LoadedBundle,
        record: UpdateRecord,
        camera: CameraStatus,
        *,
        say: Callable[[state.StateDocument], None],
    ) -> None:
        """`say` is called with the document at each change, not for the initial state."""
        self._boot_id, self._say = boot_id, say
        self._stages, self._record = stages, record
        self._camera = _camera_state(camera)
        self._inspecting = True
        self._saying = threading.Lock()

    @property
    def stages(self) -> LoadedBundle:
        """Return the loaded bundle that runs."""
        return self._stages

    def document(self) -> state.StateDocument:
        """Return the current document; delivery derives the offline state from it."""
        return state.StateDocument(
            boot_id=self._boot_id,
            state="online",
            agent_version=VERSION,
            bundle=self._stages.ref,
            camera=self._camera,
            inspecting=self._inspecting,
            update=_update_state(self._record),
        )

    def update_went_on(self, stages: LoadedBundle, record: UpdateRecord) -> None:
        """Set the running bundle and the update record; publish."""
        self._stages, self._record = stages, record
        self._tell()

    def inspects(self, yes: bool) -> None:
        """Set inspection on or off; publish."""
        self._inspecting = yes
        self._tell()

    def camera_is(self, status: CameraStatus) -> None:
        """Set the camera status; publish only if it has changed."""
        camera = _camera_state(status)
        if camera != self._camera:
            self._camera = camera
            self._tell()

    def _tell(self) -> None:
        with self._saying:  # of two threads, the one that publishes last must hold the latest state
            self._say(self.document())


def _camera_state(status: CameraStatus) -> state.CameraState:
    return state.CameraState(
        state=status.state,
        reason=status.reason,
        detail=status.detail,
        since=events.utc(status.since_utc_ns),
    )


def _update_state(record: UpdateRecord) -> state.UpdateState | None:
    """Return the update as it is published; None if there never was one."""
    if record == UpdateRecord():
        return None
    last = record.last
    return state.UpdateState(
        phase=record.phase,
        candidate=_named(record.candidate) if record.candidate else None,
        last=state.UpdateOutcome(
            result=last.result,
            bundle=_named(last.bundle),
            reason=last.reason,
            time=last.time,
            report=last.report,
        )
        if last
        else None,
    )


def _named(slot: BundleSlot) -> state.UpdateBundle:
    return state.UpdateBundle(name=slot.name, version=slot.version, sha256=slot.sha256)
