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
    """One frame with at least one defect.

    Its first `repeated_lines` lines were in the frame before too. `encoder_count` belongs to its
    first line, `encoder_end` to the line after its last. `evidence`: below the topic of that name
    its picture follows, a JPEG of the whole frame; empty where none was taken.
    """

    line_count: Annotated[int, msgspec.Meta(ge=1)]
    repeated_lines: _Uint = 0
    encoder_count: int | None
    encoder_end: int | None = None
    source: str
    gate: GateScore
    bundle: BundleRef
    latency_ms: dict[str, float]
    evidence: str = ""
    defects: Annotated[tuple[Defect, ...], msgspec.Meta(min_length=1)]


class SeqRange(_Part, frozen=True, kw_only=True):
    """Both ends included."""

    boot_id: str
    first_seq: _Uint
    last_seq: _Uint


class Dropped(_Part, frozen=True, kw_only=True):
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


class StageTimes(_Part, frozen=True, kw_only=True):
    count: _Uint
    p50_ms: float
    p95_ms: float
    p99_ms: float


class CameraHealth(_Part, frozen=True, kw_only=True):
    """What the camera sent, in its own blocks. `blocks_useless` were declared, by reason;
    "line_rate" counts those that did not fit the encoder, and were inspected. Packets: null where
    the camera has none."""

    state: Literal["streaming", "impaired", "lost"]
    reason: str
    losses: _Uint
    blocks_taken: _Uint
    blocks_missing: _Uint
    blocks_repeated: _Uint
    blocks_late: _Uint
    blocks_useless: dict[str, int]
    packets_lost: int | None
    packets_resent: int | None


class HealthDocument(_Part, kw_only=True, frozen=True):
    """Retained, every few seconds. Counts are since the agent started.

    Frames captured = inspected + in gaps + `frames_in_work` (taken, not judged yet). Gaps of reason
    spool_overflow, spool_loss and refused are left out of that: their frames were inspected, their
    events were lost. Lines captured = inspected + `gap_lines` + `lines_in_work`. Gaps whose lines
    nobody counted are in `gaps_of_unknown_length`. `messages_refused` are set aside on the agent.
    `alarms` is what a person should see to, in words; empty when all is well.
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


class CameraState(_Part, frozen=True, kw_only=True):
    """impaired: it sends, but part of it is missing or of no use; `reason` is that of the gaps, or
    line_rate. lost: not_found, no_answer, control_taken, no_data or refused."""

    state: Literal["streaming", "impaired", "lost"]
    reason: str
    detail: str
    since: str


class TrialReport(_Part, frozen=True, kw_only=True):
    """A staged bundle (candidate) beside the one that ran, both on the same frames of the line.

    `turned_suspect`: frames the running bundle found clean and the candidate does not;
    `turned_clean` the reverse; `turned_frames`: the frame numbers of the first few of both. Times
    are of gate and segmenter together, taken in turn under the same load: they compare, and are
    longer than on the line. `slowdown` is the ratio of their means. `expected_p95_ms` is what the
    running bundle took on the line, times that. `mask_overlap` is the intersection of both bundles'
    defects over their union, in pixels; 1 where neither found any. `errors`: frames that a network
    failed on, which are left out of all else.
    """

    frames: _Uint = 0
    errors_running: _Uint = 0
    errors_candidate: _Uint = 0
    turned_suspect: _Uint = 0
    turned_clean: _Uint = 0
    turned_frames: tuple[int, ...] = ()
    defective_running: _Uint = 0
    defective_candidate: _Uint = 0
    defects_running: _Uint = 0
    defects_candidate: _Uint = 0
    mask_overlap: _Share = 1.0
    p50_ms_running: float = 0.0
    p50_ms_candidate: float = 0.0
    p95_ms_running: float = 0.0
    p95_ms_candidate: float = 0.0
    slowdown: float = 0.0
    expected_p95_ms: float = 0.0


class UpdateBundle(_Part, frozen=True, kw_only=True):
    name: str
    version: int
    sha256: str


class UpdateOutcome(_Part, frozen=True, kw_only=True):
    """How the last update ended. refused: before it ran; rolled_back: after; cancelled: by hand
    before it ran. `reason` is for people, "" when it was committed."""

    result: Literal["committed", "refused", "rolled_back", "cancelled"]
    bundle: UpdateBundle
    reason: str
    time: str
    report: TrialReport | None


class UpdateState(_Part, frozen=True, kw_only=True):
    """trying: beside the bundle that runs; proving: it runs, and is given up at the first fault."""

    phase: Literal["idle", "staged", "trying", "proving"]
    candidate: UpdateBundle | None
    last: UpdateOutcome | None


class StateDocument(_Part, kw_only=True, frozen=True):
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


class Command(_Part, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Payload of `command/status`, `command/start` and `command/stop`.

    `id` is the sender's: what is asked again under the same id is answered again, not done again.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")]


class PictureCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/picture`: the next frame, as JPEG on the topic that the reply names."""


class SetCoilCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/set_coil`: passed on in all that is judged from now on."""

    coil: Annotated[str, msgspec.Meta(pattern=r"^[ -~]{0,64}\Z")]


class StageCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/stage`: the name of a bundle in the agent's `commands.bundle_folder`."""

    bundle: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]


COMMANDS: dict[str, type[Command]] = {
    "status": Command,
    "picture": PictureCommand,
    "set_coil": SetCoilCommand,
    "start": Command,
    "stop": Command,
    "stage": StageCommand,
}


class Reply(_Part, frozen=True, kw_only=True):
    """What became of a command. `id` is the command's, "" where it could not be read; `result` is
    null where `ok` is false, and then `error` says why."""

    schema_version: Literal[1] = 1
    agent: str
    boot_id: str
    command: str
    id: str
    ok: bool
    error: str
    result: dict[str, Any] | None


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


def types() -> dict[str, Any]:
    """What is said on each topic below the agent's, by the topic's name."""
    return {
        "event": CloudEvent[DefectEvent],
        "gap": CloudEvent[GapEvent],
        "state": StateDocument,
        "health": HealthDocument,
        "reply": Reply,
        **{f"command.{name}": kind for name, kind in COMMANDS.items()},
    }


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) per topic, by the topic's name."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | tidied(msgspec.json.schema(kind)) for name, kind in types().items()}


def tidied(schema: Any) -> Any:
    """A schema as it is published.

    Docstrings without their indentation, which Python strips from 3.13 on only. A field that has
    but one value is always written: msgspec takes its default for leave to leave it out.
    """
    if isinstance(schema, dict):
        found = {
            key: inspect.cleandoc(value)
            if key == "description" and isinstance(value, str)
            else tidied(value)
            for key, value in schema.items()
        }
        properties = found.get("properties")
        if isinstance(properties, dict) and "required" in found:
            fixed = [n for n, p in properties.items() if len(p.get("enum", ())) == 1]
            found["required"] = [n for n in properties if n in fixed or n in found["required"]]
        return found
    return [tidied(one) for one in schema] if isinstance(schema, list | tuple) else schema
