"""Bundle format, the contract between workshop and line: manifest, golden outputs, signature."""

from edge_agent.bundle.manifest import Artifact, Bundle, InputSpec, Manifest, Tiles
from edge_agent.bundle.reader import load
from edge_agent.bundle.signature import Trust

__all__ = ["Artifact", "Bundle", "InputSpec", "Manifest", "Tiles", "Trust", "load"]
