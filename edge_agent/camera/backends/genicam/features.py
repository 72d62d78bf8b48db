"""GenICam features: set from the configuration in its order, each read back.

Values are checked before the write, because the libraries' own error texts differ.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera
from edge_agent.camera.stream import pixel_formats
from edge_agent.errors import CameraError, one_line

Value = bool | int | float | str
Kind = Literal["integer", "float", "enumeration", "boolean", "string", "command", "other"]
Tables = Mapping[str, Value] | tuple[Mapping[str, Value], ...]

_CAUSES = "it may depend on another feature (a mode, a selector, an Auto function), set that before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Current state of a feature. `value` is None if it cannot be read."""

    name: str
    kind: Kind
    value: Value | None
    writable: bool
    minimum: float | None = None
    maximum: float | None = None
    increment: float | None = None
    entries: tuple[str, ...] = ()
    unit: str = ""


class FeatureRefused(Exception):
    """Refusal of a value by the camera, with the library's message."""


class NodeMap(Protocol):
    """Access to the features of an open camera."""

    def names(self) -> list[str]:
        """Return the names of all features."""
        ...

    def node(self, name: str) -> Node | None:
        """Return the feature's current state, or None if the camera does not have it."""
        ...

    def write(self, node: Node, value: Value) -> None:
        """Write a value or execute a command; raises FeatureRefused."""
        ...


class FeatureSetting(msgspec.Struct, frozen=True, kw_only=True):
    """Feature that was set. `value` is the camera's value after the write."""

    name: str
    wanted: Value
    value: Value | None
    unit: str = ""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        took = "" if self.value in (None, self.wanted) else f" (asked for {self.wanted})"
        return f"{self.name} = {self.wanted if self.value is None else self.value}{unit}{took}"


class FeatureReport(msgspec.Struct, frozen=True, kw_only=True):
    """Camera and settings after opening."""

    camera: DiscoveredCamera
    settings: tuple[FeatureSetting, ...]
    pixel_format: str
    width_px: int
    height_px: int


def value_of(nodes: NodeMap, name: str) -> Value | None:
    """Return the feature's current value, or None if it is missing or cannot be read."""
    node = nodes.node(name)
    return node.value if node else None


def pixel_format(nodes: NodeMap) -> str:
    """Return the camera's current pixel format, or "" if the camera does not report one.

    Raises CameraError for a format that cannot be decoded.
    """
    sent = str(value_of(nodes, "PixelFormat") or "")
    if sent and not pixel_formats.known(sent):
        node = nodes.node("PixelFormat")
        usable = [one for one in (node.entries if node else ()) if pixel_formats.known(one)]
        raise CameraError(
            f"camera.features.PixelFormat: the camera sends {sent}, which cannot be "
            f"decoded here; set one of {', '.join(usable) or 'Mono8'}"
        )
    return sent


def pairs(tables: Tables) -> list[tuple[str, Value]]:
    """Return the (name, value) pairs of one table, or of several in order.

    Several tables can set one feature under two selectors.
    """
    several: Iterable[Mapping[str, Value]] = (tables,) if isinstance(tables, Mapping) else tables
    return [pair for table in several for pair in table.items()]


def apply(nodes: NodeMap, tables: Tables) -> tuple[FeatureSetting, ...]:
    """Set all features in order; raises CameraError at the first missing or refused one."""
    return tuple(_set(nodes, name, value) for name, value in pairs(tables))


def _set(nodes: NodeMap, name: str, wanted: Value) -> FeatureSetting:
    key = f"camera.features.{name}"
    node = nodes.node(name)
    if node is None:
        near = difflib.get_close_matches(name, nodes.names(), n=3)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else "see `edge-agent camera info --all`"
        )
        raise CameraError(f"{key}: this camera has no such feature; {hint}")
    value = _fit(node, wanted, key)
    if not node.writable:
        raise CameraError(f"{key}: {wanted}: it cannot be written now; {_CAUSES}")
    try:
        nodes.write(node, value)
    except FeatureRefused as error:
        why = one_line(error)
        raise CameraError(f"{key}: {wanted}: the camera refuses: {why}; {_CAUSES}") from None
    after = None if node.kind == "command" else nodes.node(name)
    got = after.value if after else None
    if node.kind in ("integer", "enumeration", "boolean") and got not in (None, value):
        raise CameraError(f"{key}: {wanted}: the camera took {got} instead; give a value it takes")
    return FeatureSetting(name=name, wanted=wanted, value=got, unit=node.unit)


def _fit(node: Node, wanted: Value, key: str) -> Value:
    """Convert `wanted` to the type of the feature; raises CameraError if that is impossible."""
    match node.kind:
        case "enumeration":
            return _entry(node, str(wanted), key)
        case "boolean" | "command":
            if not isinstance(wanted, bool) or (node.kind == "command" and not wanted):
                only = "true or false" if node.kind == "boolean" else "true, which executes it"
                raise CameraError(f"{key}: {wanted!r}: is a {node.kind}; give {only}")
            return wanted
        case "integer" | "float":
            return _number(node, wanted, key)
        case "string":
            return str(wanted)
    raise CameraError(f"{key}: {wanted!r}: is not a feature that has one value; leave it out")


def _entry(node: Node, wanted: str, key: str) -> str:
    if wanted not in node.entries:
        raise CameraError(f"{key}: {wanted}: not one of {', '.join(node.entries)}")
    if node.name == "PixelFormat" and not pixel_formats.known(wanted):
        usable = [entry for entry in node.entries if pixel_formats.known(entry)]
        raise CameraError(
            f"{key}: {wanted}: cannot be decoded here; of this camera's formats these can: "
            f"{', '.join(usable) or 'none'}"
        )
    return wanted


def _number(node: Node, wanted: Value, key: str) -> float | int:
    whole = node.kind == "integer"
    if isinstance(wanted, (bool, str)) or (whole and wanted != int(wanted)):
        raise CameraError(f"{key}: {wanted!r}: give a {'whole ' if whole else ''}number")
    value = int(wanted) if whole else float(wanted)
    low, high, step = node.minimum, node.maximum, node.increment
    bounds = f"{_shown(low)} to {_shown(high)}{' ' + node.unit if node.unit else ''}"
    if (low is not None and value < low) or (high is not None and value > high):
        raise CameraError(f"{key}: {_shown(value)}: out of range, {bounds} now")
    if whole and step and step > 1 and low is not None and (value - low) % step:
        fit = int(low + (value - low) // step * step)
        raise CameraError(
            f"{key}: {value}: goes in steps of {_shown(step)} within {bounds}; try {fit}"
        )
    return value


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.15g}"
