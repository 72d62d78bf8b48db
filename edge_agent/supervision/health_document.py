"""Health document with all counters from camera to broker, and the summary of a run."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec

from edge_agent.camera import Camera
from edge_agent.delivery.delivery import DeliveryCounts
from edge_agent.messages import events
from edge_agent.messages import health as messages_health
from edge_agent.pipeline.tally import Tally
from edge_agent.version import VERSION


def vitals(
    boot_id: str, uptime_s: float, tally: Tally, camera: Camera, delivered: DeliveryCounts
) -> messages_health.HealthDocument:
    """Return the health document of this moment.

    Args:
        boot_id: Id of this run.
        uptime_s: Seconds since the start.
        tally: Counters of the pipeline.
        camera: Camera, for its status and counters.
        delivered: Counters of delivery; their gaps are added to those of the pipeline.
    """
    gaps = tally.gaps()
    gaps |= delivered.loss_gaps
    return messages_health.HealthDocument(
        boot_id=boot_id,
        time=events.utc(time.time_ns()),
        uptime_s=round(uptime_s, 3),
        frames_captured=tally.captured,
        frames_inspected=tally.inspected,
        frames_suspect=tally.suspect,
        frames_defective=tally.defective,
        frames_in_progress=tally.in_work,
        lines_captured=tally.lines_captured,
        lines_inspected=tally.lines_inspected,
        lines_in_work=tally.lines_in_work,
        gaps=gaps,
        gap_lines=tally.gap_lines(),
        gaps_of_unknown_length=tally.gaps_of_unknown_length,
        camera=_camera_health(camera),
        events_spooled=delivered.events_spooled,
        events_published=delivered.events_published,
        messages_pending=delivered.messages_pending,
        messages_dropped=delivered.messages_dropped,
        messages_refused=delivered.messages_refused,
        alarms=delivered.alarms,
        spool=delivered.spool,
        latency=tally.times(),
    )


def summary(
    health: messages_health.HealthDocument, bundle: events.BundleRef, inspecting_s: float
) -> dict[str, Any]:
    """Return the last health document with version, bundle, duration and frame rate."""
    document: dict[str, Any] = json.loads(msgspec.json.encode(health))
    rate = document["frames_inspected"] / inspecting_s if inspecting_s else 0.0
    return document | {
        "agent_version": VERSION,
        "bundle": json.loads(msgspec.json.encode(bundle)),
        "inspecting_s": round(inspecting_s, 3),
        "frames_per_second": round(rate, 2),
    }


def _camera_health(camera: Camera) -> messages_health.CameraHealth:
    status, counts = camera.status, camera.counts
    return messages_health.CameraHealth(
        state=status.state,
        reason=status.reason,
        losses=counts.losses,
        blocks_taken=counts.blocks_taken,
        blocks_missing=counts.blocks_missing,
        blocks_duplicate=counts.blocks_duplicate,
        blocks_late=counts.blocks_late,
        blocks_rejected=counts.blocks_rejected,
        packets_lost=counts.packets_lost,
        packets_resent=counts.packets_resent,
    )
