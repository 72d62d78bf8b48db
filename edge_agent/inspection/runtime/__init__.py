"""Network execution: one protocol, one module per runtime, and the choice of artifact."""

from edge_agent.inspection.runtime.base import Runtime
from edge_agent.inspection.runtime.choice import ChosenArtifact, RefusedArtifact, choose
from edge_agent.inspection.runtime.self_test import (
    ArtifactCandidate,
    SelfTestResult,
    candidates,
    fastest,
    judge,
    open_runtime,
    runs_here,
)

__all__ = [
    "ArtifactCandidate",
    "ChosenArtifact",
    "RefusedArtifact",
    "Runtime",
    "SelfTestResult",
    "candidates",
    "choose",
    "fastest",
    "judge",
    "open_runtime",
    "runs_here",
]
