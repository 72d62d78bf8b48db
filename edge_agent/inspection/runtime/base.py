"""Interface between the inspection stages and an inference library."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input

CPU = "CPUExecutionProvider"
"""Name of onnxruntime's execution provider that is always available."""


OPENVINO = "openvino"
"""Used in place of a provider name: OpenVINO itself, without onnxruntime."""


class Runtime(Protocol):
    """Loaded network. Not thread-safe: only one thread may run it."""

    name: str
    """Library and version, for reports."""

    def run(self, batch: Input) -> NDArray[np.float32]:
        """Run one input (1, height, width, channels); return the network's output as float32."""
        ...
