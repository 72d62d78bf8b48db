"""How things stand: what runs, from which camera, inspecting or not, and where an update is.

That is the state document. Whoever changes one of these tells it here, in his own thread, and it
is said at once.
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
    def __init__(
        self,
        boot_id: str,
        stages: LoadedBundle,
        record: UpdateRecord,
        camera: CameraStatus,
        *,
        say: Callable[[state.StateDocument], None],
    ) -> None:
        """`say` is called at each change, not for what is so at first."""
        self._boot_id, self._say = boot_id, say
        self._stages, self._record = stages, record
        self._camera = _camera_state(camera)
        self._inspecting = True
        self._saying = threading.Lock()

    @property
    def stages(self) -> LoadedBundle:
        """Of the bundle that runs."""
        return self._stages

    def document(self) -> state.StateDocument:
        """As things are now; delivery makes of it what is said when we are gone."""
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
        self._stages, self._record = stages, record
        self._tell()

    def inspects(self, yes: bool) -> None:
        self._inspecting = yes
        self._tell()

    def camera_is(self, status: CameraStatus) -> None:
        """May be told again and again: it is said when it has changed."""
        camera = _camera_state(status)
        if camera != self._camera:
            self._camera = camera
            self._tell()

    def _tell(self) -> None:
        with self._saying:  # the last word of two threads is what is so now
            self._say(self.document())


def _camera_state(status: CameraStatus) -> state.CameraState:
    return state.CameraState(
        state=status.state,
        reason=status.reason,
        detail=status.detail,
        since=events.utc(status.since_utc_ns),
    )


def _update_state(record: UpdateRecord) -> state.UpdateState | None:
    """As it is published; None where there never was an update."""
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
