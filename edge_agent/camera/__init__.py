"""Frame sources: one protocol, one module per backend, one factory."""

from edge_agent.camera.base import (
    Backend,
    Camera,
    CameraLost,
    CameraStatus,
    EndOfStream,
    LossReason,
    StreamCounters,
)
from edge_agent.camera.factory import open_backend, open_camera

__all__ = [
    "Backend",
    "Camera",
    "CameraLost",
    "CameraStatus",
    "EndOfStream",
    "LossReason",
    "StreamCounters",
    "open_backend",
    "open_camera",
]
