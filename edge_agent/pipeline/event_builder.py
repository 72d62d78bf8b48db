"""Builders of the messages of a frame and of a gap. Pure: no clock, no queue, no thread."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Any

from edge_agent.frame import Frame, Gap, Region
from edge_agent.inspection.gate import GateDecision
from edge_agent.inspection.strip import DefectPosition
from edge_agent.messages import events


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """Sender of a message; `boot_id` is new at each start of the agent."""

    agent: str
    site: str
    line: str
    coil: str
    boot_id: str


def defect_event(
    identity: AgentIdentity,
    frame: Frame,
    *,
    bundle: events.BundleRef,
    class_names: tuple[str, ...],
    verdict: GateDecision,
    regions: tuple[Region, ...],
    places: tuple[DefectPosition, ...],
    latency_ms: dict[str, float],
) -> events.DefectEvent:
    """Build the event of a frame with defects.

    Args:
        identity: sender of the event.
        frame: the judged frame.
        bundle: the bundle that judged the frame.
        class_names: the bundle's classes; class 1 is the first.
        verdict: the gate's decision.
        regions: the defects; at least one.
        places: one for each region, in the same order.
        latency_ms: milliseconds by stage.
    """
    lines, pixels = frame.image.shape[:2]
    return events.DefectEvent(
        **_common(identity, frame),
        line_count=lines,
        overlap_lines=frame.overlap_lines,
        source=frame.source,
        gate=events.GateScore(
            score_logit=round(verdict.score_logit, 4),
            threshold_logit=round(verdict.threshold_logit, 4),
            probability=_sigmoid(verdict.score_logit),
        ),
        bundle=bundle,
        latency_ms={stage: round(ms, 3) for stage, ms in latency_ms.items()},
        defects=tuple(
            events.Defect(
                id=place.defect_id,
                class_name=class_names[region.class_id - 1],
                class_id=region.class_id,
                confidence=round(region.confidence, 4),
                box_px=events.BoxPx(
                    x=region.x_px, y=region.y_px, width=region.width_px, height=region.height_px
                ),
                area_px=region.area_px,
                area_mm2=place.area_mm2,
                across_mm=place.across_mm,
                along_m=place.along_m,
                mask=events.MaskRle(lines=lines, pixels=pixels, runs=region.rle),
            )
            for region, place in zip(regions, places, strict=True)
        ),
    )


def gap_event(identity: AgentIdentity, gap: Gap) -> events.GapEvent:
    """Build the message that declares a gap."""
    return events.GapEvent(
        **_common(identity, gap),
        line_count=gap.line_count,
        frame_count=gap.frame_count,
        reason=gap.reason,
        detail=gap.detail,
    )


def _common(identity: AgentIdentity, of: Frame | Gap) -> dict[str, Any]:
    return {
        "agent": identity.agent,
        "site": identity.site,
        "line": identity.line,
        "coil": identity.coil,
        "boot_id": identity.boot_id,
        "seq": 0,  # the spool writer sets the number
        "replayed": False,
        "frame_id": of.frame_id,
        "first_line": of.span.first_line,
        "captured_monotonic_ns": of.span.captured_monotonic_ns,
        "encoder_count": of.span.encoder_count,
        "encoder_end": of.span.encoder_end,
    }


def _sigmoid(logit: float) -> float:
    # 1 / (1 + e^-x), in two forms, so that exp() does not overflow for either sign.
    return 1 / (1 + exp(-logit)) if logit >= 0 else exp(logit) / (1 + exp(logit))
