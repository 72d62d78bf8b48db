"""What the stages need of an inference library."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Runtime(Protocol):
    """One loaded network. Not thread-safe: one thread runs it."""

    name: str
    """Library and version, for reports."""

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (1, h, w, c) in, the network's one output out as float32."""
        ...
