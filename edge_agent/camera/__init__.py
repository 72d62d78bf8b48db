"""Where frames come from: one protocol, one file a backend, one chooser."""

from edge_agent.camera.base import Camera, EndOfStream
from edge_agent.camera.chooser import open_camera

__all__ = ["Camera", "EndOfStream", "open_camera"]
