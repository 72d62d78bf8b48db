"""Run a network: one protocol, one file a runtime, and the choice between artifacts."""

from edge_agent.runtime.base import Runtime
from edge_agent.runtime.choice import Choice, Refusal, choose, open_runtime

__all__ = ["Choice", "Refusal", "Runtime", "choose", "open_runtime"]
