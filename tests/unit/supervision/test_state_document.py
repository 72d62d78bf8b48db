"""What is said of how things stand, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from edge_agent.camera import CameraStatus
from edge_agent.inspection.models import LoadedBundle
from edge_agent.messages.events import BundleRef
from edge_agent.messages.state import StateDocument
from edge_agent.supervision.state_document import StateKeeper
from edge_agent.update.record import BundleSlot, UpdateRecord, UpdateResult

STREAMING = CameraStatus("streaming", "", "", 0)
NEWER = BundleSlot(sha256="1" * 64, name="tiny", version=2)


def stages(version: int) -> LoadedBundle:
    ref = BundleRef(name="tiny", version=version, sha256="0" * 64, gate="g", segmenter="s")
    return cast(LoadedBundle, SimpleNamespace(ref=ref))


def state_keeper(record: UpdateRecord | None = None) -> tuple[StateKeeper, list[StateDocument]]:
    said: list[StateDocument] = []
    made = StateKeeper("b" * 32, stages(1), record or UpdateRecord(), STREAMING, say=said.append)
    return made, said


def test_each_change_is_said_as_a_whole() -> None:
    one, said = state_keeper()
    first = one.document()
    assert (first.state, first.inspecting, first.update) == ("online", True, None)
    assert said == []
    one.inspects(False)
    one.camera_is(CameraStatus("lost", "no_data", "gone", 1))
    one.update_went_on(stages(2), UpdateRecord(phase="staged", candidate=NEWER))
    assert [
        (s.inspecting, s.camera and s.camera.state, s.bundle and s.bundle.version) for s in said
    ] == [(False, "streaming", 1), (False, "lost", 1), (False, "lost", 2)]
    assert one.document() == said[-1]
    assert one.stages.ref.version == 2


def test_a_camera_that_is_as_it_was_is_not_said_again() -> None:
    one, said = state_keeper()
    for _ in range(3):
        one.camera_is(STREAMING)
    assert said == []


def test_an_update_is_said_with_how_the_last_one_ended() -> None:
    last: Any = UpdateResult(result="refused", bundle=NEWER, reason="slow", time="t")
    one, _ = state_keeper(UpdateRecord(last=last))
    update = one.document().update
    assert update is not None
    assert (update.phase, update.candidate) == ("idle", None)
    assert update.last is not None
    assert (update.last.result, update.last.bundle.version, update.last.reason) == (
        "refused",
        2,
        "slow",
    )
