"""Types of the retained `state` document: agent, camera, bundle, update."""

from __future__ import annotations

from typing import Literal

from edge_agent.messages.events import BundleRef, MessagePart, _Share, _Uint


class CameraState(MessagePart, frozen=True, kw_only=True):
    """State of the camera.

    impaired: the camera sends, but some of its data is missing or unusable; `reason` is the reason
    of the gaps, or line_rate. lost: `reason` is not_found, no_answer, control_taken, no_data or
    refused.
    """

    state: Literal["streaming", "impaired", "lost"]
    reason: str
    detail: str
    since: str


class TrialReport(MessagePart, frozen=True, kw_only=True):
    """Comparison of a staged bundle (candidate) and the running one on the same frames.

    `changed_to_suspect` counts frames that are clean for the running bundle and suspect for the
    candidate; `changed_to_clean` is the reverse; `turned_frames` lists the first few frame numbers
    of both. Times cover gate and segmenter together. Both bundles run in turn under the same load,
    so their times are comparable, but longer than on the line. `slowdown` is the ratio of the mean
    times. `expected_p95_ms` is the running bundle's p95 on the line times `slowdown`. `mask_iou` is
    the intersection of both bundles' defects over their union, in pixels; 1 if neither found any.
    `errors_running` and `errors_candidate` count frames on which a network failed; all other values
    leave these frames out.
    """

    frames: _Uint = 0
    errors_running: _Uint = 0
    errors_candidate: _Uint = 0
    changed_to_suspect: _Uint = 0
    changed_to_clean: _Uint = 0
    turned_frames: tuple[int, ...] = ()
    defective_running: _Uint = 0
    defective_candidate: _Uint = 0
    defects_running: _Uint = 0
    defects_candidate: _Uint = 0
    mask_iou: _Share = 1.0
    p50_ms_running: float = 0.0
    p50_ms_candidate: float = 0.0
    p95_ms_running: float = 0.0
    p95_ms_candidate: float = 0.0
    slowdown: float = 0.0
    expected_p95_ms: float = 0.0


class UpdateBundle(MessagePart, frozen=True, kw_only=True):
    """Bundle that an update installs."""

    name: str
    version: int
    sha256: str


class UpdateOutcome(MessagePart, frozen=True, kw_only=True):
    """Result of the last update.

    refused: rejected before it ran. rolled_back: rejected after it ran. cancelled: stopped by a
    person before it ran. `reason` is text for people, "" if the update was committed.
    """

    result: Literal["committed", "refused", "rolled_back", "cancelled"]
    bundle: UpdateBundle
    reason: str
    time: str
    report: TrialReport | None


class UpdateState(MessagePart, frozen=True, kw_only=True):
    """State of the update.

    trying: the candidate runs beside the running bundle. proving: the candidate runs on the line
    and is rolled back at the first fault.
    """

    phase: Literal["idle", "staged", "trying", "proving"]
    candidate: UpdateBundle | None
    last: UpdateOutcome | None


class StateDocument(MessagePart, kw_only=True, frozen=True):
    """Retained document: birth message and, with state "offline", last will.

    Sent again if the state of the camera, the bundle or the update changes, or if a command stops
    or starts the inspection. Offline, `bundle` is null because nothing runs, and `camera` is the
    last known state.
    """

    schema_version: Literal[1] = 1
    boot_id: str
    state: Literal["online", "offline"]
    agent_version: str
    bundle: BundleRef | None
    camera: CameraState | None = None
    inspecting: bool
    update: UpdateState | None
