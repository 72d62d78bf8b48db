"""Types of the retained `health` document."""

from __future__ import annotations

from typing import Literal

from edge_agent.messages.events import MessagePart, _Uint


class StageTimes(MessagePart, frozen=True, kw_only=True):
    """Latency of one stage: the number of frames, and percentiles in ms."""

    count: _Uint
    p50_ms: float
    p95_ms: float
    p99_ms: float


class CameraHealth(MessagePart, frozen=True, kw_only=True):
    """State and block counts of the camera.

    Blocks are the camera's own transfer units. `blocks_rejected` counts, by reason, blocks declared
    as gaps; its entry "line_rate" counts blocks that did not match the encoder but were inspected.
    The packet counts are null if the camera reports none.
    """

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
    """Retained document with counts since the agent started, sent every few seconds.

    Frames captured = inspected + in gaps + `frames_in_progress` (taken, not judged yet). Gaps with
    reason spool_overflow, spool_loss and refused do not count here: their frames were inspected,
    and only their events were lost. Lines captured = inspected + `gap_lines` + `lines_in_work`.
    `gaps_of_unknown_length` counts gaps without a line count. `messages_refused` counts messages
    that the broker refused and the agent keeps as dead letters. `alarms` lists conditions that need
    a person, as text; it is empty if there are none.
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
