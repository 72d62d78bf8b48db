"""The wire schema: what subscribers read, and nothing of how we work inside.

`event` and `gap` are CloudEvents 1.0 in structured JSON; `state` and `health` are retained JSON
documents. The JSON Schemas in docs/schema are generated from these types.
"""

from __future__ import annotations

import datetime
import inspect
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from edge_agent.frame import GapReason

SCHEMA_VERSION = 1

_Uint = Annotated[int, msgspec.Meta(ge=0)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    pass


class BoxPx(_Part, frozen=True, kw_only=True):
    """In px of the frame: x across the strip, y along it from the frame's first line."""

    x: _Uint
    y: _Uint
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]


class MaskRle(_Part, frozen=True, kw_only=True):
    """Kaggle RLE: "start length ..." pairs, column-major, counted from 1."""

    lines: _Uint
    pixels: _Uint
    runs: str


class Defect(_Part, frozen=True, kw_only=True):
    """`id` stays the same when the defect goes on in the next frame."""

    id: str
    class_name: str
    class_id: Annotated[int, msgspec.Meta(ge=1)]
    confidence: _Share
    box_px: BoxPx
    area_px: Annotated[int, msgspec.Meta(ge=1)]
    area_mm2: float | None
    across_mm: float | None
    along_m: float | None
    mask: MaskRle


class GateScore(_Part, frozen=True, kw_only=True):
    score_logit: float
    threshold_logit: float
    probability: _Share


class BundleRef(_Part, frozen=True, kw_only=True):
    name: str
    version: int
    sha256: str
    gate: str
    segmenter: str


class _Numbered(_Part, kw_only=True, frozen=True):
    """Common to event and gap. (agent, boot_id, seq) names a message once and for all."""

    schema_version: Literal[1] = 1
    agent: str
    site: str
    line: str
    coil: str
    boot_id: str
    seq: _Uint
    replayed: bool
    frame_id: _Uint
    first_line: _Uint
    captured_monotonic_ns: int


class DefectEvent(_Numbered, kw_only=True, frozen=True):
    """One frame with at least one defect."""

    line_count: Annotated[int, msgspec.Meta(ge=1)]
    encoder_count: int | None
    source: str
    gate: GateScore
    bundle: BundleRef
    latency_ms: dict[str, float]
    defects: Annotated[tuple[Defect, ...], msgspec.Meta(min_length=1)]


class GapEvent(_Numbered, kw_only=True, frozen=True):
    """A stretch of strip that was not inspected, or whose event was lost, and why."""

    line_count: int | None
    reason: GapReason
    detail: str


Data = TypeVar("Data", DefectEvent, GapEvent)

DEFECT_TYPE = "linegate.defect.v1"
GAP_TYPE = "linegate.gap.v1"


class CloudEvent(msgspec.Struct, Generic[Data], frozen=True, kw_only=True):
    """CloudEvents 1.0, structured mode. `time` is the capture time in UTC."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: Data


class StageTimes(_Part, frozen=True, kw_only=True):
    count: _Uint
    p50_ms: float
    p95_ms: float
    p99_ms: float


class HealthDocument(_Part, kw_only=True, frozen=True):
    """Retained, every few seconds. Counts are since the agent started.

    Frames captured = inspected + in gaps + `frames_in_work` (taken, not judged yet). Gaps of reason
    spool_overflow are left out of that: their frames were inspected, their events were lost.
    """

    schema_version: Literal[1] = 1
    boot_id: str
    time: str
    uptime_s: float
    frames_captured: _Uint
    frames_inspected: _Uint
    frames_suspect: _Uint
    frames_defective: _Uint
    frames_in_work: int
    lines_inspected: _Uint
    gaps: dict[str, int]
    events_spooled: _Uint
    events_published: _Uint
    messages_pending: _Uint
    messages_dropped: _Uint
    spool: Literal["disk", "memory"]
    latency: dict[str, StageTimes]


class StateDocument(_Part, kw_only=True, frozen=True):
    """Retained: the birth document, and (state "offline") the last will."""

    schema_version: Literal[1] = 1
    boot_id: str
    state: Literal["online", "offline"]
    agent_version: str
    bundle: BundleRef | None


def utc(time_ns: int) -> str:
    """RFC 3339 with microseconds, in UTC."""
    at = datetime.datetime.fromtimestamp(time_ns / 1e9, tz=datetime.timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def envelope(data: Data, time_ns: int) -> CloudEvent[Data]:
    return CloudEvent(
        id=f"{data.agent}/{data.boot_id}/{data.seq}",
        source=f"/{data.site}/{data.line}/{data.agent}",
        type=DEFECT_TYPE if isinstance(data, DefectEvent) else GAP_TYPE,
        time=utc(time_ns),
        data=data,
    )


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) per topic, by the topic's name."""
    types = {
        "event": CloudEvent[DefectEvent],
        "gap": CloudEvent[GapEvent],
        "state": StateDocument,
        "health": HealthDocument,
    }
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | _tidied(msgspec.json.schema(kind)) for name, kind in types.items()}


def _tidied(schema: Any) -> Any:
    """Docstrings without their indentation, which Python strips from 3.13 on only."""
    if isinstance(schema, dict):
        return {
            key: inspect.cleandoc(value)
            if key == "description" and isinstance(value, str)
            else _tidied(value)
            for key, value in schema.items()
        }
    return [_tidied(one) for one in schema] if isinstance(schema, list) else schema
