"""Judge a new bundle by its first frames on the line."""

from __future__ import annotations

from collections import deque

from edge_agent.config.config import UpdateConfig
from edge_agent.pipeline.pipeline import Inspection
from edge_agent.update import comparison


class Probation:
    """How the bundle does that runs and is not trusted yet."""

    def __init__(self, sha256: str, rules: UpdateConfig) -> None:
        self._sha256, self._rules = sha256, rules
        self._frames = self._failed = 0
        self._judged_ms: deque[float] = deque(maxlen=rules.prove_frames)

    def see(self, inspected: Inspection) -> bool:
        """In the inference thread. Whether it is a frame of this bundle that failed."""
        if inspected.bundle_sha256 != self._sha256:
            return False
        self._frames += 1
        self._failed += inspected.failed
        if not inspected.failed:
            self._judged_ms.append(inspected.judged_ms)
        return inspected.failed

    @property
    def fault(self) -> str:
        """Why the bundle must go, or ""."""
        return comparison.fault_of_proof(
            self._frames, self._failed, tuple(self._judged_ms), self._rules
        )

    @property
    def is_complete(self) -> bool:
        return self._frames >= self._rules.prove_frames
