"""The service manager's notification protocol: readiness and watchdog."""

# By hand: it is one datagram. The bindings to libsystemd need its headers on every box.

from __future__ import annotations

import contextlib
import os
import socket


def sd_notify(message: str) -> None:
    """sd_notify(3): a datagram to NOTIFY_SOCKET; nothing where systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), address)


def watchdog_s() -> float | None:
    """systemd's WatchdogSec, or None when no watchdog waits for us."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6
