"""Result of camera discovery, and selection of the configured camera."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge_agent.camera.base import CameraLost, LossReason
from edge_agent.errors import CameraError


class DiscoveredCamera(msgspec.Struct, frozen=True, kw_only=True):
    """Camera found by discovery; a field is empty if the camera does not report it.

    `device_id` is the identifier of the operating system or of a GenTL producer.
    """

    kind: str
    transport: str = ""
    serial: str = ""
    user_name: str = ""
    vendor: str = ""
    model: str = ""
    mac: str = ""
    ip: str = ""
    interface: str = ""
    device_id: str = ""
    note: str = ""

    def __str__(self) -> str:
        named = f" {self.user_name!r}" if self.user_name else ""
        where = " ".join(part for part in (self.ip, self.mac, self.device_id) if part)
        return f"{self.vendor} {self.model}{named}, serial {self.serial or '-'}, {where or '-'}"


def choose(found: Sequence[DiscoveredCamera], wanted: dict[str, str]) -> DiscoveredCamera:
    """Return the only camera that matches all of `wanted`.

    Raises CameraLost if none matches, CameraError if several match.
    """
    asked = {key: value for key, value in wanted.items() if value}
    fits = [one for one in found if all(_is(one, key, value) for key, value in asked.items())]
    shown = ", ".join(f"camera.{key}: {value}" for key, value in asked.items()) or "camera"
    if len(fits) == 1:
        return fits[0]
    if fits:
        several = "; ".join(str(one) for one in fits)
        raise CameraError(
            f"{shown}: {len(fits)} cameras fit: {several}; say which, by {_keys(wanted)}"
        )
    others = "; ".join(str(one) for one in found) or "no camera at all"
    raise CameraLost(
        LossReason.NOT_FOUND,
        f"{shown}: no such camera answers; found: {others}; see `edge-agent camera list`",
    )


def _is(one: DiscoveredCamera, key: str, value: str) -> bool:
    has = str(getattr(one, key))
    if key == "mac":
        return _bare(has) == _bare(value)
    return has == value


def _bare(mac: str) -> str:
    return mac.replace(":", "").replace("-", "").upper()


def _keys(wanted: dict[str, str]) -> str:
    return ", ".join(f"camera.{key}" for key in wanted)
