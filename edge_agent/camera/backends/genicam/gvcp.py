"""Discovery of GigE Vision cameras by GVCP (UDP 3956), and a check that one still answers.

A camera answers regardless of its controller and its IP address. Its reply is untrusted input.
"""

# Own implementation: the library reports no serial number, user-defined name or interface, and the
# same request distinguishes a silent camera from a disconnected one (docs/decisions/0013).

from __future__ import annotations

import array
import contextlib
import fcntl
import ipaddress
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera

PORT = 3956
_KEY, _DISCOVERY, _DISCOVERY_ACK = 0x42, 0x0002, 0x0003
_ACKNOWLEDGE, _BROADCAST_ANSWER = 0x01, 0x10
_ACK_BYTES = 248
_MAX_CAMERAS, _MAX_INTERFACES = 256, 256
# ioctl of Linux, netdevice(7).
_SIOCGIFCONF, _SIOCGIFNETMASK, _IFREQ_BYTES = 0x8912, 0x891B, 40


@dataclass(frozen=True, slots=True)
class Interface:
    """IPv4 address of this host, with its network interface."""

    name: str
    address: ipaddress.IPv4Interface

    def __str__(self) -> str:
        return f"{self.name} {self.address}"


@dataclass(frozen=True, slots=True)
class GigeDevice:
    """GigE Vision device from its discovery reply, and the interface that received it."""

    serial: str
    user_name: str
    mac: str
    ip: str
    netmask: str
    vendor: str
    model: str
    version: str
    interface: Interface | None = None

    @property
    def found(self) -> DiscoveredCamera:
        """Return the device as a discovered camera."""
        return DiscoveredCamera(
            kind="genicam",
            transport="gige",
            serial=self.serial,
            user_name=self.user_name,
            vendor=self.vendor,
            model=self.model,
            mac=self.mac,
            ip=self.ip,
            interface=self.interface.name if self.interface else "",
        )


def request(request_id: int) -> bytes:
    """Return a discovery request."""
    # A broadcast reply also arrives from a camera whose address is in another subnet.
    flags = _ACKNOWLEDGE | _BROADCAST_ANSWER
    return struct.pack(">BBHHH", _KEY, flags, _DISCOVERY, 0, request_id)


def decode(answer: bytes, request_id: int) -> GigeDevice | None:
    """Decode a discovery reply; return None for any other packet, or another request's reply."""
    if len(answer) < 8 + _ACK_BYTES:
        return None
    status, command, length, number = struct.unpack_from(">HHHH", answer)
    if (status, command, number) != (0, _DISCOVERY_ACK, request_id) or length < _ACK_BYTES:
        return None
    body = answer[8 : 8 + _ACK_BYTES]
    return GigeDevice(
        mac=":".join(f"{byte:02X}" for byte in body[10:16]),
        ip=str(ipaddress.IPv4Address(body[36:40])),
        netmask=str(ipaddress.IPv4Address(body[52:56])),
        vendor=_text(body[72:104]),
        model=_text(body[104:136]),
        version=_text(body[136:168]),
        serial=_text(body[216:232]),
        user_name=_text(body[232:248]),
    )


def _text(field: bytes) -> str:
    """Return the text up to the first NUL, with characters that cannot be printed replaced."""
    text = field.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else "?" for c in text)


def interfaces() -> list[Interface]:
    """Return this host's IPv4 addresses with their networks, loopback last."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        buffer = array.array("B", bytes(_IFREQ_BYTES * _MAX_INTERFACES))
        asked = struct.pack("iL", len(buffer), buffer.buffer_info()[0])
        used, _ = struct.unpack("iL", fcntl.ioctl(one, _SIOCGIFCONF, asked))
        entries = [buffer[at : at + _IFREQ_BYTES].tobytes() for at in range(0, used, _IFREQ_BYTES)]
        found = []
        for entry in entries:
            mask = fcntl.ioctl(one, _SIOCGIFNETMASK, entry)[20:24]
            name = entry[:16].split(b"\0", 1)[0].decode("ascii", "replace")
            host, network = socket.inet_ntoa(entry[20:24]), socket.inet_ntoa(mask)
            found.append(Interface(name, ipaddress.IPv4Interface(f"{host}/{network}")))
    return sorted(found, key=lambda one: one.address.is_loopback)


def discover(wait_s: float = 0.4, only: str = "") -> list[GigeDevice]:
    """Return all cameras that reply within `wait_s`.

    `only` restricts the search to one interface, by name or address.
    """
    request_id = 1 + time.monotonic_ns() % 0xFFFF
    seen: dict[tuple[str, str, str], GigeDevice] = {}
    own = interfaces()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for interface in own:
            if only in ("", interface.name, str(interface.address.ip)):
                one = stack.enter_context(_broadcaster(interface, request(request_id)))
                selector.register(one, selectors.EVENT_READ, (one, interface))
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0 and len(seen) < _MAX_CAMERAS:
            for key, _ in selector.select(left_s):
                listener, interface = key.data
                with contextlib.suppress(OSError):
                    device = decode(listener.recv(2048), request_id)
                    if device:
                        # Two interfaces may receive one camera's reply; a MAC may be all zeros.
                        heard = home(device.ip, own) or interface
                        one_camera = (device.mac, device.ip, device.serial)
                        seen.setdefault(one_camera, replace(device, interface=heard))
    return sorted(seen.values(), key=lambda one: (one.ip, one.serial))


def answers(ip: str, wait_s: float = 0.25, tries: int = 2) -> bool:
    """Return True if the camera at this address replies, also if another host controls it."""
    for _ in range(tries):
        request_id = 1 + time.monotonic_ns() % 0xFFFF
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect((ip, PORT))
            one.settimeout(wait_s)
            one.send(request(request_id))
            if decode(one.recv(2048), request_id):
                return True
    return False


def home(ip: str, of: Iterable[Interface]) -> Interface | None:
    """Return the interface whose network contains the address, or None."""
    try:
        address = ipaddress.IPv4Address(ip)
    except ValueError:
        return None
    return next((one for one in of if address in one.address.network), None)


@contextlib.contextmanager
def _broadcaster(interface: Interface, data: bytes) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        with contextlib.suppress(OSError):
            # The broadcast must leave by this device; an alias ("eth0:1") has the same device.
            device = interface.name.partition(":")[0].encode()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        targets = ["255.255.255.255", str(interface.address.network.broadcast_address)]
        if interface.address.is_loopback:
            targets.append(str(interface.address.ip))  # a simulated camera gets no broadcasts
        for target in targets:
            with contextlib.suppress(OSError):
                one.sendto(data, (target, PORT))
        yield one
