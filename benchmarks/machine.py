"""Description of the machine on which the figures were measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from workshop.machine import cpu_fields, cpu_name

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "asimddp", "i8mm")
_LIBRARIES = (
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "tflite-runtime",
    "numpy",
    "opencv-python",
    "linegate",
)


def describe() -> dict[str, Any]:
    """Return the CPU model, its vector extensions relevant to int8, cores and libraries."""
    fields = cpu_fields()
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_name(),
        "cpu_flags": [flag for flag in _FLAGS if flag in present],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "libraries": libraries,
    }
