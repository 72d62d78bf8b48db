"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
    """CPU model, the vector extensions that matter to int8, cores, libraries."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": fields.get("model name") or platform.machine(),
        "cpu_flags": [flag for flag in _FLAGS if flag in present],
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "libraries": libraries,
    }
