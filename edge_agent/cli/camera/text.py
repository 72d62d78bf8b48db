"""Output of the camera commands, as text and as JSON; pure functions.

An unknown figure is "-" in text and null in JSON. The text of `camera test` is in
`camera.commissioning`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera
    from edge_agent.camera.backends.genicam.features import FeatureReport, Node
    from edge_agent.camera.commissioning import Exposure


class CameraFirstBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Camera without features, described by its first block."""

    kind: str
    pixel_format: str
    width_px: int
    height_px: int | None


class CameraMonitored(msgspec.Struct, frozen=True, kw_only=True):
    """Camera in read-only access; `packet_size` in bytes."""

    camera: DiscoveredCamera
    packet_size: int | None


class CameraInfo(msgspec.Struct, frozen=True):
    """Camera with the current values of its features."""

    camera: FeatureReport | CameraMonitored | CameraFirstBlock
    features: tuple[Node, ...] = ()


class GrabbedImage(msgspec.Struct, frozen=True, kw_only=True):
    """Frame that was written to a file."""

    file: str
    width_px: int
    height_px: int
    channels: int
    first_line: int
    encoder_count: int | None


class LiveStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Rates over the last second; counts are totals since the camera was opened."""

    state: str
    blocks_per_second: float | None
    lines_per_second: float | None
    blocks_missing: int
    blocks_incomplete: int
    packets_lost: int | None
    packets_resent: int | None
    focus: float | None
    exposure: Exposure | None


def as_json(value: msgspec.Struct | Sequence[msgspec.Struct]) -> str:
    """Return one value or several as JSON."""
    return json.dumps(msgspec.to_builtins(value))


def found(cameras: Sequence[DiscoveredCamera]) -> str:
    """Return the list of cameras, one per line."""
    return "\n".join(_found(one) for one in cameras) or "no camera answers"


def _found(one: DiscoveredCamera) -> str:
    note = f"  ({one.note})" if one.note else ""
    return f"{one.kind} {one.transport or '-'}: {one}{note}"


def looked_as_json(seen: CameraInfo) -> str:
    """Return a camera with its features as JSON."""
    features = {
        one.name: {
            "value": one.value,
            "unit": one.unit,
            "writable": one.writable,
            "minimum": one.minimum,
            "maximum": one.maximum,
            "entries": list(one.entries),
        }
        for one in seen.features
    }
    return json.dumps(msgspec.to_builtins(seen.camera) | {"features": features})


def looked(seen: CameraInfo) -> str:
    """Return a camera with its features as text."""
    rows = (
        f"{one.name:<28} {_value(one.value)} {one.unit} {_allowed(one)}".rstrip()
        for one in seen.features
    )
    return "\n".join((*_opened(msgspec.to_builtins(seen.camera)), *rows))


def _opened(camera: dict[str, Any]) -> Iterator[str]:
    for key, value in camera.items():
        if key == "camera":
            yield "camera: " + ", ".join(f"{k} {v}" for k, v in value.items() if v)
        elif key == "settings":
            for one in value:
                yield f"set {one['name']} = {one['wanted']}, reads {one['value']} {one['unit']}"
        else:
            yield f"{key}: {value}"


def _value(value: bool | int | float | str | None) -> str:
    return "-" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def _allowed(one: Node) -> str:
    if one.kind == "enumeration":
        return f"({', '.join(one.entries)})"
    if one.minimum is None or one.maximum is None:
        return ""
    return f"({one.minimum:.15g} to {one.maximum:.15g})"


def pictures(written: Sequence[GrabbedImage]) -> str:
    """Return the list of written images, one per line."""
    return "\n".join(
        f"{one.file}: {one.width_px}x{one.height_px}, {one.channels} channel(s)" for one in written
    )


def live(now: LiveStatistics, clock: str) -> str:
    """Return the statistics as one line; `clock` is the time of day."""
    text = (
        f"{clock} {now.state} {_rate(now.blocks_per_second)} blocks/s "
        f"{_rate(now.lines_per_second)} lines/s, missing {now.blocks_missing} "
        f"incomplete {now.blocks_incomplete}"
    )
    if now.exposure:
        light = now.exposure
        text += (
            f" | mean {light.mean:.0f} p1 {light.p1} p99 {light.p99} "
            f"sat {100 * light.saturated_share:.1f} % [{light.bars}]"
        )
    if now.focus is not None:
        text += f" | focus {now.focus:.4g}"
    return text


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
