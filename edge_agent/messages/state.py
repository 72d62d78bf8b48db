"""The retained `state` document: agent, camera, bundle, update."""

from __future__ import annotations

from typing import Literal

from edge_agent.messages.events import BundleRef, MessagePart, _Share, _Uint


class CameraState(MessagePart, frozen=True, kw_only=True):
    """impaired: it sends, but part of it is missing or of no use; `reason` is that of the gaps, or
    line_rate. lost: not_found, no_answer, control_taken, no_data or refused."""

    state: Literal["streaming", "impaired", "lost"]
    reason: str
    detail: str
    since: str


class TrialReport(MessagePart, frozen=True, kw_only=True):
    """A staged bundle (candidate) beside the one that ran, both on the same frames of the line.

    `changed_to_suspect`: frames the running bundle found clean and the candidate does not;
    `changed_to_clean` the reverse; `turned_frames`: the frame numbers of the first few of both.
    Times are of gate and segmenter together, taken in turn under the same load: they compare, and
    are longer than on the line. `slowdown` is the ratio of their means. `expected_p95_ms` is what
    the running bundle took on the line, times that. `mask_iou` is the intersection of both bundles'
    defects over their union, in pixels; 1 where neither found any. `errors`: frames that a network
    failed on, which are left out of all else.
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
    name: str
    version: int
    sha256: str


class UpdateOutcome(MessagePart, frozen=True, kw_only=True):
    """How the last update ended. refused: before it ran; rolled_back: after; cancelled: by hand
    before it ran. `reason` is for people, "" when it was committed."""

    result: Literal["committed", "refused", "rolled_back", "cancelled"]
    bundle: UpdateBundle
    reason: str
    time: str
    report: TrialReport | None


class UpdateState(MessagePart, frozen=True, kw_only=True):
    """trying: beside the bundle that runs; proving: it runs, and is given up at the first fault."""

    phase: Literal["idle", "staged", "trying", "proving"]
    candidate: UpdateBundle | None
    last: UpdateOutcome | None


class StateDocument(MessagePart, kw_only=True, frozen=True):
    """Retained: the birth document, and (state "offline") the last will. Sent again when the
    camera's state or the bundle changes, an update goes on, or a command stops or starts the
    inspection.

    Offline `bundle` is null: nothing runs; `camera` is as it was last.
    """

    schema_version: Literal[1] = 1
    boot_id: str
    state: Literal["online", "offline"]
    agent_version: str
    bundle: BundleRef | None
    camera: CameraState | None = None
    inspecting: bool
    update: UpdateState | None
