"""Inspection of a frame: preprocess, gate, segment, locate on the strip."""

from edge_agent.inspection.gate import Gate, GateDecision
from edge_agent.inspection.models import LoadedBundle, Models
from edge_agent.inspection.segmenter import Segmenter
from edge_agent.inspection.strip import StripTracker

__all__ = ["Gate", "GateDecision", "LoadedBundle", "Models", "Segmenter", "StripTracker"]
