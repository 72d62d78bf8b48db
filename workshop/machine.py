"""Processor of the machine, for figures measured on it."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_fields() -> dict[str, str]:
    """Return what Linux lists of one processor, by name; empty where it cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    fields = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in fields if colon}


def cpu_name() -> str:
    """Return the processor's model, or its architecture where Linux names none (on Arm)."""
    return cpu_fields().get("model name") or platform.machine()
