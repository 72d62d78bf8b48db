"""viva-genicam adapter: discovery, connection, features as a NodeMap. Only this module loads it.

Library errors become CameraLost if a retry may help, else CameraError; where possible a GVCP
request decides, not the library's message.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Any

from edge_agent.camera.backends.genicam import gvcp
from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera, choose
from edge_agent.camera.base import CameraLost, LossReason
from edge_agent.config.camera import GenicamCamera
from edge_agent.errors import CameraError, one_line

viva: Any = None
with contextlib.suppress(ImportError):
    import viva_genicam as viva

CCP, HEARTBEAT_TIMEOUT, PACKET_SIZE = 0x0A00, 0x0938, 0x0D04
_TICKS_HIGH, _TICKS_LOW = 0x093C, 0x0940
_EXCLUSIVE = 3
_ASK_S = (0.3, 0.6, 0.9)
"""Time to wait for replies in each discovery attempt, in s, until the camera is found."""


def library() -> Any:
    """Return the viva_genicam module; raises CameraError if it is not installed."""
    if viva is None:
        raise CameraError(
            "camera.kind: genicam: the package viva-genicam is not installed; "
            "install linegate[genicam]"
        )
    return viva


def devices(config: GenicamCamera | None = None, wait_s: float = 0.3) -> list[DiscoveredCamera]:
    """Return the cameras of all transports, or of the configured transport."""
    if config is None or config.transport == "gige":
        found = [one.found for one in gvcp.discover(wait_s, config.interface if config else "")]
        if config is not None:
            return found
    else:
        found = []
    return found + [_usb(one) for one in _usb_devices()]


def _usb_devices() -> list[Any]:
    try:
        return list(library().discover_u3v())
    except library().GenicamError:  # a host or container without any USB
        return []


def _usb(one: Any) -> DiscoveredCamera:
    return DiscoveredCamera(
        kind="genicam",
        transport="usb3",
        serial=one.serial or "",
        vendor=one.manufacturer or "",
        model=one.model or "",
        device_id=f"usb {one.bus}:{one.address}",
        note=one.speed or "",
    )


def connect(config: GenicamCamera, *, monitor: bool = False) -> tuple[Any, DiscoveredCamera]:
    """Find and open the configured camera; return it with its discovery data.

    `monitor` opens it read only, beside the client that controls it.

    Raises:
        CameraLost: The camera is absent, silent or controlled by another host.
        CameraError: The configuration does not fit the camera or this host.
    """
    _check(config)
    wanted = {"serial": config.serial, "user_name": config.user_name}
    if config.transport == "gige":
        wanted |= {"mac": config.mac, "ip": config.ip}
    found = _found(config, wanted)
    if config.transport == "usb3":
        return _connect_usb(found), found
    own = gvcp.interfaces()
    if gvcp.home(found.ip, own) is None:
        raise CameraError(_foreign(found.ip, own))
    device = _device(found)
    camera = _connect_gige(device, found, monitor=monitor)
    if not monitor:
        camera = _with_heartbeat(camera, device, found, config)
    return camera, found


def _found(config: GenicamCamera, wanted: dict[str, str]) -> DiscoveredCamera:
    """Find the camera in several attempts: packets can be lost and a busy camera replies late."""
    for wait_s in _ASK_S:
        try:
            return choose(devices(config, wait_s), wanted)
        except CameraLost as error:
            missing = error
    raise missing


def _check(config: GenicamCamera) -> None:
    if config.ip:
        try:
            ipaddress.IPv4Address(config.ip)
        except ValueError:
            raise CameraError(
                f"camera.ip: {config.ip}: not an IPv4 address; give four numbers with dots"
            ) from None
    own = gvcp.interfaces() if config.transport == "gige" else []
    if config.ip and gvcp.home(config.ip, own) is None:
        raise CameraError(_foreign(config.ip, own))
    names = {one.name for one in own} | {str(one.address.ip) for one in own}
    if config.interface and config.transport == "gige" and config.interface not in names:
        raise CameraError(
            f"camera.interface: {config.interface}: this host has no such interface; "
            f"it has {', '.join(map(str, own))}"
        )


def _foreign(ip: str, own: list[gvcp.Interface]) -> str:
    return (
        f"camera.ip: {ip}: in another subnet than this host, which is on "
        f"{', '.join(map(str, own))}; give the camera an address in one of them "
        "(`viva-camctl set-ip --help`) or this host one in the camera's"
    )


def _device(found: DiscoveredCamera) -> Any:
    """Return the library's own handle, which only its discovery creates; raises CameraLost."""
    for wait_s in _ASK_S:
        wait_ms = round(1000 * wait_s)
        for one in library().discover(timeout_ms=wait_ms, iface=found.interface or None, all=True):
            if one.ip == found.ip:
                return one
    raise CameraLost(LossReason.NO_ANSWER, f"camera {found}: answered once, and then no more")


def _connect_gige(device: Any, found: DiscoveredCamera, *, monitor: bool) -> Any:
    try:
        return library().connect_gige(device, monitor=monitor)
    except library().GenicamError as error:
        why = one_line(error)
        # Some controlled cameras do not refuse but stay silent.
        if "ACCESS_DENIED" in why or (not monitor and _is_controlled(device)):
            raise CameraLost(
                LossReason.CONTROL_TAKEN,
                f"camera {found}: another program or host has control of it; end that, "
                "or wait until the camera's heartbeat timeout is over",
            ) from None
        raise CameraLost(LossReason.NO_ANSWER, f"camera {found}: cannot be opened: {why}") from None


def _is_controlled(device: Any) -> bool:
    """Return True if any client controls the camera; False if that cannot be determined."""
    with (
        contextlib.suppress(library().GenicamError),
        library().connect_gige(device, monitor=True) as camera,
    ):
        return any(camera.read_register(CCP, 4))
    return False


def _connect_usb(found: DiscoveredCamera) -> Any:
    for one in _usb_devices():
        if (one.serial or "") == found.serial and f"usb {one.bus}:{one.address}" == found.device_id:
            try:
                return library().connect_u3v(one)
            except library().GenicamError as error:
                raise broken(error, found, "cannot be opened") from None
    raise CameraLost(LossReason.NO_ANSWER, f"camera {found}: was there, and is no more")


def _with_heartbeat(
    camera: Any, device: Any, found: DiscoveredCamera, config: GenicamCamera
) -> Any:
    """Set the heartbeat timeout and reconnect, because the library reads it only at connection."""
    if config.heartbeat_ms is None:
        return camera
    wanted = config.heartbeat_ms.to_bytes(4, "big")
    try:
        if camera.read_register(HEARTBEAT_TIMEOUT, 4) == wanted:
            return camera
        camera.write_register(HEARTBEAT_TIMEOUT, wanted)
        got = int.from_bytes(camera.read_register(HEARTBEAT_TIMEOUT, 4), "big")
    except library().GenicamError as error:
        camera.close()
        raise broken(error, found, "camera.heartbeat_ms cannot be set") from None
    camera.close()
    if got != config.heartbeat_ms:
        raise CameraError(f"camera.heartbeat_ms: {config.heartbeat_ms}: the camera keeps {got}")
    return _connect_gige(device, found, monitor=False)


def broken(error: Exception, found: DiscoveredCamera, what: str) -> CameraError:
    """Convert a library error during opening: CameraLost if the camera does not reply any more.

    Otherwise it returns a CameraError with `what` and the library's message.
    """
    why = one_line(error)
    if found.ip and not gvcp.answers(found.ip):
        return CameraLost(LossReason.NO_ANSWER, f"camera {found}: no answer any more ({why})")
    return CameraError(f"camera {found}: {what}: {why}")


def make_exclusive(camera: Any) -> None:
    """Take exclusive access: no other client may read. Must follow the opening of the stream.

    Opening a stream claims control again and would overwrite the access mode.
    """
    camera.write_register(CCP, _EXCLUSIVE.to_bytes(4, "big"))


def tick_hz(camera: Any) -> int | None:
    """Return the tick rate of the camera's clock in Hz, or None if it is not reported."""
    if camera.transport == "u3v":
        return 1_000_000_000
    try:
        high, low = (camera.read_register(at, 4) for at in (_TICKS_HIGH, _TICKS_LOW))
        return int.from_bytes(high + low, "big") or None
    except library().GenicamError:
        return None


def packet_size(camera: Any) -> int | None:
    """Return the stream's packet size in bytes, or None if unknown or not GigE Vision."""
    if camera.transport == "u3v":
        return None
    try:
        return int.from_bytes(camera.read_register(PACKET_SIZE, 4), "big") & 0xFFFF
    except library().GenicamError:
        return None
