"""Fault, lines and chunk values of one buffer of viva-genicam."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from edge_agent.camera.backends.genicam.features import Value
from edge_agent.camera.stream import pixel_formats
from edge_agent.frame import GapReason


def fault_of(frame: Any) -> tuple[str, GapReason]:
    """Return what is wrong with a buffer, "" if it is complete, and the reason of its gap."""
    status = frame.status.value
    if status == "Complete":
        return "", GapReason.INCOMPLETE
    if status == "Incomplete":
        missing = frame.missing_packets
        return f"{missing} of its packets never came", GapReason.INCOMPLETE
    if status == "DeviceStatus":
        return f"the camera says status 0x{frame.device_status or 0:04X}", GapReason.BAD_FRAME
    return "its last packets never came", GapReason.INCOMPLETE


def lines_of(frame: Any, pixel_format: str) -> tuple[Any, str]:
    """Return the payload without line padding and chunks, or None and the fault."""
    raw = np.frombuffer(frame.payload(), np.uint8)
    try:
        line = pixel_formats.payload_bytes(pixel_format, 1, frame.width)
        whole = pixel_formats.payload_bytes(pixel_format, frame.height, frame.width)
    except ValueError as error:
        return None, str(error)
    if not frame.padding_x:
        return raw[:whole], ""
    stride = line + frame.padding_x
    if raw.size < stride * frame.height:
        return None, f"{raw.size} bytes for {frame.height} lines of {stride}"
    return raw[: stride * frame.height].reshape(frame.height, stride)[:, :line].reshape(-1), ""


def as_number(text: Value | Exception) -> int | float | None:
    """Return a chunk value as a number, or None if it is none."""
    for kind in (int, float):
        with contextlib.suppress(ValueError, TypeError):
            return kind(text)  # type: ignore[arg-type]
    return None
