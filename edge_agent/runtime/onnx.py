"""ONNX artifacts through onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class OnnxRuntime:
    def __init__(self, path: Path, input_name: str, output_name: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # The cores are shared with the camera and the publisher: a spinning pool starves them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._input, self._outputs = input_name, [output_name]
        self.name = f"onnxruntime {onnxruntime.__version__}"

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(
            self._session.run(self._outputs, {self._input: batch})[0], dtype=np.float32
        )
