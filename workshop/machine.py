"""Processor of the machine, for figures measured on it."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_fields() -> dict[str, str]:
    """Return the fields that Linux lists for one processor, by name; empty if unreadable."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    fields = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in fields if colon}


def cpu_name() -> str:
    """Return the processor's model, or its architecture if Linux lists none (on Arm)."""
    return cpu_fields().get("model name") or platform.machine()
