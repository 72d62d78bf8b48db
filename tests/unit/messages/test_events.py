"""The wire schema: what we send is what we published, and what we published is a schema."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.__main__ import main
from edge_agent.frame import GapReason
from edge_agent.messages import (
    commands,
    events,
    health,
)
from edge_agent.messages import (
    schema as messages_schema,
)
from edge_agent.messages import (
    state as messages_state,
)
from tests.support.paths import ROOT

UTC_NS = 1_700_000_000_123_456_000

BUNDLE = events.BundleRef(
    name="steel", version=3, sha256="0" * 64, gate="onnx-int8", segmenter="tflite-float32"
)
DEFECT = events.Defect(
    id="0badcafe-7-0",
    class_name="scratch",
    class_id=2,
    confidence=0.87,
    box_px=events.BoxPx(x=0, y=12, width=7, height=200),
    area_px=900,
    area_mm2=None,
    across_mm=12.5,
    along_m=0.003,
    mask=events.MaskRle(lines=256, pixels=1600, runs="13 200"),
)
COMMON: dict[str, Any] = {
    "agent": "cam-1",
    "site": "plant",
    "line": "L3",
    "coil": "",
    "boot_id": "0badcafe0badcafe",
    "seq": 41,
    "replayed": False,
    "frame_id": 7,
    "first_line": 1792,
    "captured_monotonic_ns": 123,
}
EVENT = events.DefectEvent(
    **COMMON,
    line_count=256,
    encoder_count=None,
    source="",
    gate=events.GateScore(score_logit=3.5, threshold_logit=-4.6, probability=0.97),
    bundle=BUNDLE,
    latency_ms={"gate": 41.5, "total": 99.0},
    defects=(DEFECT,),
)
GAP = events.GapEvent(**COMMON, line_count=None, reason=GapReason.BAD_FRAME, detail="truncated")
UPDATED = messages_state.UpdateBundle(name="steel", version=2, sha256="b" * 64)
STATE = messages_state.StateDocument(
    boot_id="0badcafe",
    state="online",
    agent_version="0.1.0",
    bundle=BUNDLE,
    camera=messages_state.CameraState(
        state="lost", reason="no_answer", detail="camera.url: gone", since=events.utc(UTC_NS)
    ),
    inspecting=True,
    update=messages_state.UpdateState(
        phase="idle",
        candidate=None,
        last=messages_state.UpdateOutcome(
            result="refused", bundle=UPDATED, reason="slow", time=events.utc(UTC_NS), report=None
        ),
    ),
)
HEALTH = health.HealthDocument(
    boot_id="0badcafe",
    time=events.utc(UTC_NS),
    uptime_s=3.5,
    frames_captured=10,
    frames_inspected=8,
    frames_suspect=3,
    frames_defective=2,
    frames_in_progress=1,
    lines_captured=2560,
    lines_inspected=2048,
    lines_in_work=256,
    gaps={"bad_frame": 1},
    gap_lines={"bad_frame": 256},
    gaps_of_unknown_length=0,
    camera=health.CameraHealth(
        state="impaired",
        reason="incomplete",
        losses=1,
        blocks_taken=10,
        blocks_missing=0,
        blocks_duplicate=0,
        blocks_late=0,
        blocks_rejected={"incomplete": 1},
        packets_lost=3,
        packets_resent=None,
    ),
    events_spooled=2,
    events_published=1,
    messages_pending=1,
    messages_dropped=0,
    spool="disk",
    latency={"gate": health.StageTimes(count=8, p50_ms=1.0, p95_ms=2.0, p99_ms=2.5)},
)
EXAMPLES: dict[str, Any] = {
    "event": events.envelope(EVENT, UTC_NS),
    "gap": events.envelope(GAP, UTC_NS),
    "state": STATE,
    "health": HEALTH,
    "reply": commands.Reply(
        agent="cam-1",
        boot_id="0badcafe",
        command="stop",
        id="mes-1",
        ok=True,
        error="",
        result={"inspecting": False},
    ),
    "command.status": commands.Command(id="mes-1"),
    "command.start": commands.Command(id="mes-1"),
    "command.stop": commands.Command(id="mes-1"),
    "command.picture": commands.PictureCommand(id="mes-1"),
    "command.set_coil": commands.SetCoilCommand(id="mes-1", coil="C-8"),
    "command.stage": commands.StageCommand(id="mes-1", bundle="steel-3"),
}
SAID = [kind for kind in EXAMPLES if not kind.startswith("command.")]


def _document(kind: str) -> Any:
    """An example as a subscriber gets it."""
    return json.loads(msgspec.json.encode(EXAMPLES[kind]))


def _check(kind: str, document: Any) -> None:
    jsonschema.Draft202012Validator(messages_schema.schemas()[kind]).validate(document)


# The schemas.


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_schema_is_a_schema(kind: str) -> None:
    schema = messages_schema.schemas()[kind]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


def test_there_is_a_schema_for_every_kind_of_message() -> None:
    assert set(messages_schema.schemas()) == set(EXAMPLES)


def test_the_published_schemas_are_those_of_the_code(tmp_path: Path) -> None:
    assert main(["schema", "--out", str(tmp_path)]) == 0
    published = ROOT / "docs" / "schema"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"{kind}.schema.json" for kind in EXAMPLES)
    assert names == sorted(path.name for path in published.glob("*.json"))
    for name in names:
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert (published / name).read_text(encoding="utf-8") == written, (
            "run `edge-agent schema --out docs/schema`"
        )


# Documents.


@pytest.mark.parametrize("kind", EXAMPLES)
def test_what_we_send_validates(kind: str) -> None:
    _check(kind, _document(kind))


@pytest.mark.parametrize("reason", GapReason)
def test_every_reason_for_a_gap_validates(reason: GapReason) -> None:
    gap = msgspec.structs.replace(GAP, reason=reason, line_count=256)
    document = json.loads(msgspec.json.encode(events.envelope(gap, UTC_NS)))
    assert document["data"]["reason"] == reason.value
    _check("gap", document)


def test_offline_without_a_bundle_validates() -> None:
    state = msgspec.structs.replace(STATE, state="offline", bundle=None)
    _check("state", json.loads(msgspec.json.encode(state)))


@pytest.mark.parametrize("kind", SAID)
def test_what_a_later_version_adds_does_no_harm(kind: str) -> None:
    document = _document(kind) | {"added_later": 1}
    _check(kind, document)
    assert (
        msgspec.json.decode(json.dumps(document), type=messages_schema.types()[kind])
        == EXAMPLES[kind]
    )


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if kind not in SAID])
def test_what_a_command_does_not_know_is_refused(kind: str) -> None:
    """A word that is not understood may have been meant as a limit."""
    document = _document(kind) | {"added_later": 1}
    with pytest.raises(jsonschema.ValidationError):
        _check(kind, document)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(document), type=messages_schema.types()[kind])


def _required(kind: str) -> list[tuple[str, tuple[str, ...]]]:
    """Each key of an example by its way from the top; those with a default may be left out."""
    defaults = {"specversion", "datacontenttype", "schema_version"}
    # What an older version has spooled is sent by this one, without these.
    defaults |= {"overlap_lines", "frame_count", "encoder_end", "evidence"}
    defaults |= {"encoder_count"} if kind == "gap" else set()
    # Came after the first release, whose agents leave them out.
    defaults |= {"dropped", "messages_refused", "alarms"}
    # Within these, keys are names that come and go.
    free = {"latency_ms", "gaps", "latency", "gap_lines", "blocks_rejected", "result"}

    def ways(tree: Any, way: tuple[str, ...]) -> list[tuple[str, ...]]:
        if not isinstance(tree, dict) or (way and way[-1] in free):
            return []
        return [w for k, v in tree.items() for w in ((*way, k), *ways(v, (*way, k)))]

    return [
        (kind, way)
        for way in ways(_document(kind), ())
        if way[-1] not in defaults and (kind, way) != ("state", ("camera",))
    ]


@pytest.mark.parametrize(("kind", "way"), [case for kind in EXAMPLES for case in _required(kind)])
def test_no_key_may_be_missing(kind: str, way: tuple[str, ...]) -> None:
    document = _document(kind)
    at = document
    for key in way[:-1]:
        at = at[key]
    del at[way[-1]]
    with pytest.raises(jsonschema.ValidationError):
        _check(kind, document)


BROKEN: list[tuple[str, Callable[[Any], Any]]] = [
    ("event", lambda d: d.update(specversion="0.3")),
    ("event", lambda d: d.update(id=41)),
    ("event", lambda d: d.update(datacontenttype="text/plain")),
    ("event", lambda d: d["data"].update(schema_version=2)),
    ("event", lambda d: d["data"].update(seq=-1)),
    ("event", lambda d: d["data"].update(seq="41")),
    ("event", lambda d: d["data"].update(replayed=0)),
    ("event", lambda d: d["data"].update(defects=[])),
    ("event", lambda d: d["data"].update(line_count=0)),
    ("event", lambda d: d["data"]["gate"].update(probability=1.01)),
    ("event", lambda d: d["data"]["latency_ms"].update(gate="fast")),
    ("event", lambda d: d["data"]["defects"][0].update(class_id=0)),
    ("event", lambda d: d["data"]["defects"][0].update(confidence=-0.1)),
    ("event", lambda d: d["data"]["defects"][0].update(area_px=0)),
    ("event", lambda d: d["data"]["defects"][0].update(area_mm2="1")),
    ("event", lambda d: d["data"]["defects"][0]["box_px"].update(x=-1)),
    ("event", lambda d: d["data"]["defects"][0]["box_px"].update(width=0)),
    ("event", lambda d: d["data"]["defects"][0]["mask"].update(runs=[1, 2])),
    ("gap", lambda d: d["data"].update(reason="coffee")),
    ("gap", lambda d: d["data"].update(line_count="many")),
    ("gap", lambda d: d["data"].update(detail=None)),
    ("state", lambda d: d.update(state="away")),
    ("state", lambda d: d.update(bundle="steel")),
    ("health", lambda d: d.update(spool="tape")),
    ("health", lambda d: d.update(frames_captured=-1)),
    ("health", lambda d: d["gaps"].update(overload=1.5)),
    ("health", lambda d: d["latency"]["gate"].pop("p99_ms")),
]


@pytest.mark.parametrize(("kind", "breaking"), BROKEN)
def test_a_broken_document_does_not_validate(kind: str, breaking: Callable[[Any], Any]) -> None:
    document = _document(kind)
    breaking(document)
    with pytest.raises(jsonschema.ValidationError):
        _check(kind, document)


# CloudEvents 1.0.


@pytest.mark.parametrize(
    ("kind", "type_"), [("event", "linegate.defect.v1"), ("gap", "linegate.gap.v1")]
)
def test_attributes_that_cloudevents_requires(kind: str, type_: str) -> None:
    document = _document(kind)
    assert document["specversion"] == "1.0"
    assert document["type"] == type_
    assert document["id"] == "cam-1/0badcafe0badcafe/41"
    assert document["source"] == "/plant/L3/cam-1"
    assert document["datacontenttype"] == "application/json"
    assert document["time"] == "2023-11-14T22:13:20.123456Z"
    assert isinstance(document["data"], dict)
    for name in document:  # 3.1: attribute names are lower-case letters and digits
        assert re.fullmatch(r"[a-z0-9]+", name)


def test_source_and_id_name_a_message_once_and_for_all() -> None:
    def name(**changes: Any) -> tuple[str, str]:
        envelope = events.envelope(msgspec.structs.replace(GAP, **changes), UTC_NS)
        return envelope.source, envelope.id

    names = {
        name(),
        name(seq=42),
        name(boot_id="another"),
        name(agent="cam-2"),
        name(line="L4"),
        name(site="elsewhere"),
    }
    assert len(names) == 6
    # Sent again after a lost connection, it is the same message.
    assert name(replayed=True) == name()


@pytest.mark.parametrize("data", [EVENT, GAP])
def test_what_is_encoded_is_decoded(data: Any) -> None:
    envelope = events.envelope(data, UTC_NS)
    kind: Any = events.CloudEvent[type(data)]
    assert msgspec.json.decode(msgspec.json.encode(envelope), type=kind) == envelope


# Time.


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000Z"),
        (UTC_NS, "2023-11-14T22:13:20.123456Z"),
    ],
)
def test_utc(time_ns: int, text: str) -> None:
    assert events.utc(time_ns) == text


@given(time_ns=st.integers(0, 4_000_000_000_000_000_000))
def test_utc_is_rfc_3339_to_the_microsecond(time_ns: int) -> None:
    text = events.utc(time_ns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    at = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
    since = at - datetime.datetime(1970, 1, 1)
    microseconds = since // datetime.timedelta(microseconds=1)
    assert abs(microseconds * 1000 - time_ns) <= 1000
