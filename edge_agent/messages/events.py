"""The wire schema: what subscribers read, and nothing of how we work inside.

`event` and `gap` are CloudEvents 1.0 in structured JSON; `state` and `health` are retained JSON
documents. The JSON Schemas in docs/schema are generated from these types.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Generic, Literal, TypeVar

import msgspec

from edge_agent.frame import GapReason

SCHEMA_VERSION = 1

_Uint = Annotated[int, msgspec.Meta(ge=0)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class MessagePart(msgspec.Struct, frozen=True, kw_only=True):
    pass


class BoxPx(MessagePart, frozen=True, kw_only=True):
    """In px of the frame: x across the strip, y along it from the frame's first line."""

    x: _Uint
    y: _Uint
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]


class MaskRle(MessagePart, frozen=True, kw_only=True):
    """Kaggle RLE: "start length ..." pairs, column-major, counted from 1."""

    lines: _Uint
    pixels: _Uint
    runs: str


class Defect(MessagePart, frozen=True, kw_only=True):
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


class GateScore(MessagePart, frozen=True, kw_only=True):
    score_logit: float
    threshold_logit: float
    probability: _Share


class BundleRef(MessagePart, frozen=True, kw_only=True):
    name: str
    version: int
    sha256: str
    gate: str
    segmenter: str


class _Numbered(MessagePart, kw_only=True, frozen=True):
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
    """One frame with at least one defect.

    Its first `overlap_lines` lines were in the frame before too. `encoder_count` belongs to its
    first line, `encoder_end` to the line after its last. `evidence`: below the topic of that name
    its picture follows, a JPEG of the whole frame; empty where none was taken.
    """

    line_count: Annotated[int, msgspec.Meta(ge=1)]
    overlap_lines: _Uint = 0
    encoder_count: int | None
    encoder_end: int | None = None
    source: str
    gate: GateScore
    bundle: BundleRef
    latency_ms: dict[str, float]
    evidence: str = ""
    defects: Annotated[tuple[Defect, ...], msgspec.Meta(min_length=1)]


class SeqRange(MessagePart, frozen=True, kw_only=True):
    """Both ends included."""

    boot_id: str
    first_seq: _Uint
    last_seq: _Uint


class Dropped(MessagePart, frozen=True, kw_only=True):
    """What will not come: the messages within `ranges` that have not come yet.

    `messages` is their number, as far as they were numbered or counted; `pictures` of evidence.
    """

    messages: _Uint
    pictures: _Uint
    ranges: tuple[SeqRange, ...]


class GapEvent(_Numbered, kw_only=True, frozen=True):
    """A stretch of strip that was not inspected, or whose event was lost, and why.

    `line_count` is null where nobody counted the lines: a camera that was gone, without an encoder.
    It stands for `frame_count` frames. `encoder_count` belongs to its first line, `encoder_end` to
    the line after its last. `dropped` is given where messages were lost, not frames.
    """

    line_count: int | None
    frame_count: Annotated[int, msgspec.Meta(ge=1)] = 1
    encoder_count: int | None = None
    encoder_end: int | None = None
    reason: GapReason
    detail: str
    dropped: Dropped | None = None


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
