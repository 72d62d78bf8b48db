"""From the [camera] section to an open camera."""

from __future__ import annotations

from edge_agent.camera.base import Camera
from edge_agent.camera.folder import Folder
from edge_agent.camera.simulated import Simulated
from edge_agent.config import Camera as CameraConfig
from edge_agent.config import FolderCamera


def open_camera(config: CameraConfig) -> Camera:
    """Raises CameraError when there is nothing to grab from."""
    if isinstance(config, FolderCamera):
        return Folder(config)
    return Simulated(config)
