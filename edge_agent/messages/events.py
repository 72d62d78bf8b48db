"""Wire schema of the messages; independent of the agent's internal types.

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
    """Base of all message types: immutable, built with keyword arguments."""


class BoxPx(MessagePart, frozen=True, kw_only=True):
    """Bounding box in px of the frame: x across the strip, y along it from the first line."""

    x: _Uint
    y: _Uint
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]


class MaskRle(MessagePart, frozen=True, kw_only=True):
    """Defect mask as Kaggle RLE: "start length ..." pairs, column-major, counted from 1."""

    lines: _Uint
    pixels: _Uint
    runs: str


class Defect(MessagePart, frozen=True, kw_only=True):
    """Defect in a frame.

    `id` stays the same if the defect continues in the next frame. `area_mm2`, `across_mm` and
    `along_m` are null if the size of a pixel on the strip is not configured.
    """

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
    """Score of the gate for one frame; a frame is suspect from `threshold_logit` on."""

    score_logit: float
    threshold_logit: float
    probability: _Share


class BundleRef(MessagePart, frozen=True, kw_only=True):
    """Model bundle that judged a frame, with the names of its gate and segmenter."""

    name: str
    version: int
    sha256: str
    gate: str
    segmenter: str


class _Numbered(MessagePart, kw_only=True, frozen=True):
    """Fields common to event and gap; (agent, boot_id, seq) identifies a message."""

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
    """Frame with at least one defect.

    The previous frame also contains the first `overlap_lines` lines. `encoder_count` belongs to the
    first line, `encoder_end` to the line after the last. If `evidence` is not empty, a JPEG of the
    whole frame follows on the topic `evidence/<evidence>`.
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
    """Range of message numbers of one boot, both ends included."""

    boot_id: str
    first_seq: _Uint
    last_seq: _Uint


class Dropped(MessagePart, frozen=True, kw_only=True):
    """Messages that will not arrive: those within `ranges` that have not arrived yet.

    `messages` is their number, as far as they were numbered or counted. `pictures` is the number of
    dropped evidence pictures.
    """

    messages: _Uint
    pictures: _Uint
    ranges: tuple[SeqRange, ...]


class GapEvent(_Numbered, kw_only=True, frozen=True):
    """Stretch of strip that was not inspected, or whose event was lost.

    `line_count` is null if the lines were not counted: the camera was lost and there is no encoder.
    The gap stands for `frame_count` frames. `encoder_count` belongs to the first line,
    `encoder_end` to the line after the last. `dropped` is present if messages, not frames, were
    lost.
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
    """CloudEvents 1.0 envelope, structured mode. `time` is the capture time in UTC."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: Data


def utc(time_ns: int) -> str:
    """Format ns since 1970 as RFC 3339 in UTC, with microseconds."""
    at = datetime.datetime.fromtimestamp(time_ns / 1e9, tz=datetime.timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def envelope(data: Data, time_ns: int) -> CloudEvent[Data]:
    """Wrap an event or gap in its CloudEvent; `time_ns` is the capture time, ns since 1970."""
    return CloudEvent(
        id=f"{data.agent}/{data.boot_id}/{data.seq}",
        source=f"/{data.site}/{data.line}/{data.agent}",
        type=DEFECT_TYPE if isinstance(data, DefectEvent) else GAP_TYPE,
        time=utc(time_ns),
        data=data,
    )
