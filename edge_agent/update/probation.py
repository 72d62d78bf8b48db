"""Probation of a new bundle: its first frames on the line."""

from __future__ import annotations

from collections import deque

from edge_agent.config.config import UpdateConfig
from edge_agent.pipeline.pipeline import Inspection
from edge_agent.update import comparison


class Probation:
    """Counts and times of a running bundle that is not confirmed yet."""

    def __init__(self, sha256: str, rules: UpdateConfig) -> None:
        self._sha256, self._rules = sha256, rules
        self._frames = self._failed = 0
        self._judged_ms: deque[float] = deque(maxlen=rules.prove_frames)

    def see(self, inspected: Inspection) -> bool:
        """Count a frame, from the inference thread; other bundles' frames are ignored.

        Returns True if this bundle failed on the frame.
        """
        if inspected.bundle_sha256 != self._sha256:
            return False
        self._frames += 1
        self._failed += inspected.failed
        if not inspected.failed:
            self._judged_ms.append(inspected.judged_ms)
        return inspected.failed

    @property
    def fault(self) -> str:
        """Return the reason why the bundle must be rolled back, or ""."""
        return comparison.fault_of_proof(
            self._frames, self._failed, tuple(self._judged_ms), self._rules
        )

    @property
    def is_complete(self) -> bool:
        """Return True once `prove_frames` frames have been inspected."""
        return self._frames >= self._rules.prove_frames
