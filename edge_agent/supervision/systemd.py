"""Notification protocol of systemd: readiness, status and watchdog."""

# Implemented here: it is one datagram, and the bindings to libsystemd need its headers installed.

from __future__ import annotations

import contextlib
import os
import socket


def sd_notify(message: str) -> None:
    """Send a message to NOTIFY_SOCKET (man 3 sd_notify); do nothing without systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), address)


def watchdog_s() -> float | None:
    """Return WatchdogSec in seconds; None if systemd does not watch this process."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6
