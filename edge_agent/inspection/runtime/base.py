"""What the stages need of an inference library."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input

CPU = "CPUExecutionProvider"
"""onnxruntime's name of the execution provider that is always there."""


OPENVINO = "openvino"
"""In the place of a provider's name: OpenVINO itself, without onnxruntime."""


class Runtime(Protocol):
    """One loaded network. Not thread-safe: one thread runs it."""

    name: str
    """Library and version, for reports."""

    def run(self, batch: Input) -> NDArray[np.float32]:
        """(1, h, w, c) in, the network's one output out as float32."""
        ...
