"""The retained `health` document."""

from __future__ import annotations

from typing import Literal

from edge_agent.messages.events import MessagePart, _Uint


class StageTimes(MessagePart, frozen=True, kw_only=True):
    count: _Uint
    p50_ms: float
    p95_ms: float
    p99_ms: float


class CameraHealth(MessagePart, frozen=True, kw_only=True):
    """What the camera sent, in its own blocks. `blocks_rejected` were declared, by reason;
    "line_rate" counts those that did not fit the encoder, and were inspected. Packets: null where
    the camera has none."""

    state: Literal["streaming", "impaired", "lost"]
    reason: str
    losses: _Uint
    blocks_taken: _Uint
    blocks_missing: _Uint
    blocks_duplicate: _Uint
    blocks_late: _Uint
    blocks_rejected: dict[str, int]
    packets_lost: int | None
    packets_resent: int | None


class HealthDocument(MessagePart, kw_only=True, frozen=True):
    """Retained, every few seconds. Counts are since the agent started.

    Frames captured = inspected + in gaps + `frames_in_progress` (taken, not judged yet). Gaps of
    reason spool_overflow, spool_loss and refused are left out of that: their frames were inspected,
    their events were lost. Lines captured = inspected + `gap_lines` + `lines_in_work`. Gaps whose
    lines nobody counted are in `gaps_of_unknown_length`. `messages_refused` are set aside on the
    agent. `alarms` is what a person should see to, in words; empty when all is well.
    """

    schema_version: Literal[1] = 1
    boot_id: str
    time: str
    uptime_s: float
    frames_captured: _Uint
    frames_inspected: _Uint
    frames_suspect: _Uint
    frames_defective: _Uint
    frames_in_progress: int
    lines_captured: _Uint
    lines_inspected: _Uint
    lines_in_work: int
    gaps: dict[str, int]
    gap_lines: dict[str, int]
    gaps_of_unknown_length: _Uint
    camera: CameraHealth
    events_spooled: _Uint
    events_published: _Uint
    messages_pending: _Uint
    messages_dropped: _Uint
    messages_refused: _Uint = 0
    alarms: tuple[str, ...] = ()
    spool: Literal["disk", "memory"]
    latency: dict[str, StageTimes]
