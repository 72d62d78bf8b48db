"""ONNX artifacts through OpenVINO on the CPU: on x86 often the fastest, where it is installed.

Nothing is sent: to import openvino alone would tell Google Analytics of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input

# Without this module openvino takes the silent stub that it has for that case.
cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)

import openvino  # noqa: E402 - after the line above, or it is too late


class OpenvinoRuntime:
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
                # Else it takes bfloat16 where the CPU has it, and that is another network.
                "INFERENCE_PRECISION_HINT": "f32",
                # The cores are shared with the camera and the publisher.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._input = compiled.input(input_name)
        self._output = compiled.output(output_name)
        self._request = compiled.create_infer_request()
        self.name = f"openvino {openvino.__version__.partition('-')[0]}"

    def run(self, batch: Input) -> NDArray[np.float32]:
        self._request.infer({self._input: batch})
        # Its own buffer: the next run would overwrite it.
        return np.array(self._request.get_tensor(self._output).data, dtype=np.float32)
