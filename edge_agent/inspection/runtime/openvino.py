"""Runtime for ONNX artifacts: OpenVINO on the CPU, often the fastest on x86, if installed.

A plain import of openvino sends telemetry to Google Analytics; this module disables it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input

# Without the module openvino_telemetry, openvino uses its own stub, which sends nothing.
cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)

import openvino  # noqa: E402 - must follow the line above, which disables telemetry


class OpenvinoRuntime:
    """Runtime of an ONNX artifact in OpenVINO."""

    def __init__(self, path: Path, input_name: str, output_name: str, threads: int) -> None:
        core = openvino.Core()
        model = core.read_model(path)
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": threads,
                # By default OpenVINO uses bfloat16 if the CPU has it: the outputs would differ.
                "INFERENCE_PRECISION_HINT": "f32",
                # The camera and the sender share the cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._input = compiled.input(input_name)
        self._output = compiled.output(output_name)
        self._request = compiled.create_infer_request()
        self.name = f"openvino {openvino.__version__.partition('-')[0]}"

    def run(self, batch: Input) -> NDArray[np.float32]:
        """Run one input (1, height, width, channels); return the output as float32."""
        self._request.infer({self._input: batch})
        # Copy: the next run overwrites the request's buffer.
        return np.array(self._request.get_tensor(self._output).data, dtype=np.float32)
