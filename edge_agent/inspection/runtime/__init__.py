"""Run a network: one protocol, one file a runtime, and the choice between artifacts."""

from edge_agent.inspection.runtime.base import Runtime
from edge_agent.inspection.runtime.choice import Choice, Refusal, choose
from edge_agent.inspection.runtime.self_test import (
    Candidate,
    Judged,
    candidates,
    fastest,
    judge,
    open_runtime,
    runs_here,
)

__all__ = [
    "Candidate",
    "Choice",
    "Judged",
    "Refusal",
    "Runtime",
    "candidates",
    "choose",
    "fastest",
    "judge",
    "open_runtime",
    "runs_here",
]
