"""The features of a camera that viva-genicam opened."""

from __future__ import annotations

from typing import Any

from edge_agent.camera.backends.genicam.features import FeatureRefused, Kind, Node, Value
from edge_agent.camera.backends.genicam.viva import library

_KINDS: dict[str, Kind] = {
    "Integer": "integer",
    "IntConverter": "integer",
    "IntSwissKnife": "integer",
    "Float": "float",
    "Converter": "float",
    "SwissKnife": "float",
    "Enumeration": "enumeration",
    "Boolean": "boolean",
    "StringReg": "string",
    "String": "string",
    "Command": "command",
}


class VivaNodes:
    """NodeMap of a camera opened with viva-genicam."""

    def __init__(self, camera: Any) -> None:
        self._camera = camera

    def names(self) -> list[str]:
        """Return the names of all features."""
        # The registers behind features have their own names, which the SFNC does not define.
        listed = {name for names in self._camera.categories().values() for name in names}
        categories = set(self._camera.categories())
        return [name for name in self._camera.nodes() if name in listed and name not in categories]

    def node(self, name: str) -> Node | None:
        """Return the feature's current state, or None if the camera does not have it."""
        if self._camera.node_info(name) is None:
            return None
        try:
            state = self._camera.feature_state(name)
        except library().GenicamError:
            # The value is not defined in the camera's XML: the feature exists but is unreadable.
            return Node(name=name, kind="other", value=None, writable=False)
        if not state.is_implemented:
            return None
        return Node(
            name=name,
            kind=_KINDS.get(state.kind, "other"),
            value=state.value,
            writable=state.is_available and state.access in ("RW", "WO"),
            minimum=state.range.min if state.range else None,
            maximum=state.range.max if state.range else None,
            increment=state.range.inc if state.range else None,
            entries=tuple(state.enum_entries or ()),
            unit=state.unit or "",
        )

    def write(self, node: Node, value: Value) -> None:
        """Write a value or execute a command; raises FeatureRefused."""
        camera, name = self._camera, node.name
        try:
            match node.kind:
                case "integer":
                    camera.set_integer(name, value)
                case "float":
                    camera.set_float(name, value)
                case "enumeration":
                    camera.set_enum(name, value)
                case "boolean":
                    camera.set_bool(name, value)
                case "command":
                    camera.execute(name)
                case _:
                    camera.set_string(name, value)
        except library().GenicamError as error:
            raise FeatureRefused(str(error)) from None
