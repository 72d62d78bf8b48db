"""Frames and gaps as the messages that subscribers read."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.frame import Frame, Gap, GapReason, LineSpan, Region
from edge_agent.inspection.gate import GateDecision
from edge_agent.inspection.strip import DefectPosition
from edge_agent.messages import events
from edge_agent.pipeline.event_builder import AgentIdentity, defect_event, gap_event

IDENTITY = AgentIdentity(agent="cam-1", site="plant", line="L3", coil="C-17", boot_id="0badcafe")
SPAN = LineSpan(
    first_line=1000,
    line_count=4,
    captured_utc_ns=11,
    captured_monotonic_ns=12,
    encoder_count=2000,
    encoder_end=2008,
)
FRAME = Frame(np.zeros((4, 6), np.uint8), 7, SPAN, source="007.png", overlap_lines=1)
GAP = Gap(GapReason.CAMERA_LOSS, 7, SPAN, "blocks 7 to 9 never came", frame_count=3)
BUNDLE = events.BundleRef(
    name="steel", version=3, sha256="0" * 64, gate="onnx-int8", segmenter="tflite-float32"
)
REGION = Region(
    class_id=2,
    confidence=0.876_543,
    x_px=1,
    y_px=2,
    width_px=3,
    height_px=2,
    area_px=5,
    rle="7 2 11 2 15 1",
)
PLACE = DefectPosition("0badcafe-7-0", across_mm=12.5, along_m=0.25, area_mm2=1.5)
WHERE: dict[str, Any] = {
    "agent": "cam-1",
    "site": "plant",
    "line": "L3",
    "coil": "C-17",
    "boot_id": "0badcafe",
    "seq": 0,
    "replayed": False,
    "frame_id": 7,
    "first_line": 1000,
    "line_count": 4,
    "captured_monotonic_ns": 12,
    "encoder_count": 2000,
    "encoder_end": 2008,
}


def _event(**changes: Any) -> events.DefectEvent:
    values: dict[str, Any] = {
        "bundle": BUNDLE,
        "class_names": ("inclusion", "scratch"),
        "verdict": GateDecision(1.234_567, -4.595_12),
        "regions": (REGION,),
        "places": (PLACE,),
        "latency_ms": {"wait": 0.123_456, "gate": 4.0},
    }
    return defect_event(IDENTITY, changes.pop("frame", FRAME), **values | changes)


def _sent(event: events.DefectEvent | events.GapEvent) -> Any:
    return msgspec.json.decode(msgspec.json.encode(event))


def test_an_event_holds_the_flat_fields_of_the_wire() -> None:
    assert _sent(_event()) == WHERE | {
        "schema_version": 1,
        "overlap_lines": 1,
        "source": "007.png",
        "gate": {
            "score_logit": 1.2346,
            "threshold_logit": -4.5951,
            "probability": pytest.approx(1 / (1 + exp(-1.234_567))),
        },
        "bundle": msgspec.to_builtins(BUNDLE),
        "latency_ms": {"wait": 0.123, "gate": 4.0},
        "evidence": "",
        "defects": [
            {
                "id": "0badcafe-7-0",
                "class_name": "scratch",
                "class_id": 2,
                "confidence": 0.8765,
                "box_px": {"x": 1, "y": 2, "width": 3, "height": 2},
                "area_px": 5,
                "area_mm2": 1.5,
                "across_mm": 12.5,
                "along_m": 0.25,
                "mask": {"lines": 4, "pixels": 6, "runs": "7 2 11 2 15 1"},
            }
        ],
    }


def test_a_colour_frame_has_the_lines_and_pixels_of_a_grey_one() -> None:
    frame = replace(FRAME, image=np.zeros((4, 6, 3), np.uint8))
    assert _event(frame=frame) == _event()


def test_each_region_keeps_its_own_place() -> None:
    other = replace(PLACE, defect_id="0badcafe-7-1")
    event = _event(regions=(REGION, replace(REGION, class_id=1)), places=(PLACE, other))
    assert [(d.id, d.class_name) for d in event.defects] == [
        ("0badcafe-7-0", "scratch"),
        ("0badcafe-7-1", "inclusion"),
    ]


def test_a_region_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _event(regions=(REGION, REGION))


@pytest.mark.parametrize(("logit", "wanted"), [(-1e4, 0.0), (0.0, 0.5), (1e4, 1.0)])
def test_no_score_overflows_the_probability(logit: float, wanted: float) -> None:
    assert _event(verdict=GateDecision(logit, 0.0)).gate.probability == wanted


def test_a_gap_holds_the_flat_fields_of_the_wire() -> None:
    assert _sent(gap_event(IDENTITY, GAP)) == WHERE | {
        "schema_version": 1,
        "frame_count": 3,
        "reason": "camera_loss",
        "detail": "blocks 7 to 9 never came",
        "dropped": None,
    }


def test_a_gap_of_unknown_length_says_so() -> None:
    span = replace(SPAN, line_count=None, encoder_end=None)
    event = gap_event(IDENTITY, replace(GAP, span=span))
    assert (event.line_count, event.encoder_count, event.encoder_end) == (None, 2000, None)
