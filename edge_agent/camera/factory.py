"""Factory: opens the camera of the [camera] section."""

from __future__ import annotations

from edge_agent.camera.backends.folder import FolderBackend
from edge_agent.camera.backends.simulated import SimulatedBackend
from edge_agent.camera.base import Backend, Camera
from edge_agent.camera.line_camera import LineCamera
from edge_agent.config.camera import Camera as CameraConfig
from edge_agent.config.camera import (
    FolderCamera,
    GenicamCamera,
    GentlCamera,
    GstreamerCamera,
    RtspCamera,
    SimulatedCamera,
    V4l2Camera,
    VideoCamera,
)
from edge_agent.errors import ConfigError


def open_backend(config: CameraConfig) -> Backend:
    """Open the backend alone, as `edge-agent camera` uses it; raises CameraError or CameraLost.

    Each backend with an optional library is imported only when it is selected.
    """
    match config:
        case FolderCamera():
            return FolderBackend(config)
        case SimulatedCamera():
            return SimulatedBackend(config)
        case V4l2Camera() | RtspCamera() | GstreamerCamera() | VideoCamera():
            from edge_agent.camera.backends.opencv import OpenCvBackend

            return OpenCvBackend(config)
        case GenicamCamera():
            from edge_agent.camera.backends.genicam.backend import GenicamBackend

            return GenicamBackend(config)
        case GentlCamera():
            from edge_agent.camera.backends.genicam.gentl import GentlBackend

            return GentlBackend(config)


def open_camera(
    config: CameraConfig, *, colour: bool = True, bundle_lines: int | None = None
) -> Camera:
    """Open the camera and return it ready to grab.

    Args:
        config: The [camera] section.
        colour: The bundle needs RGB frames from a colour camera.
        bundle_lines: Height of the bundle's golden frames, or None if their heights differ.

    Raises:
        ConfigError: The frame height or overlap is inconsistent.
        CameraError: The camera cannot be opened.
    """
    lines = frame_lines(config, bundle_lines)
    return LineCamera(
        lambda: open_backend(config),
        wait=config.wait,
        colour=colour,
        frame_lines=lines,
        overlap_lines=config.overlap_lines,
        encoder_counts_per_line=config.encoder_counts_per_line,
        check_images=config.implausible_images == "declare",
    )


def frame_lines(config: CameraConfig, bundle_lines: int | None) -> int | None:
    """Return the height of re-cut frames, None for the camera's frames; raises ConfigError."""
    lines = config.frame_lines
    if lines == "bundle":
        lines = bundle_lines or "camera"
        if bundle_lines is None:
            raise ConfigError(
                'camera.frame_lines: "bundle", but the bundle\'s golden frames are not all of one '
                "height; give a number of lines"
            )
    if lines == "camera":
        if config.overlap_lines:
            raise ConfigError(
                f"camera.overlap_lines: {config.overlap_lines} with frames as the camera gives "
                'them; set camera.frame_lines to a number or to "bundle"'
            )
        return None
    if config.overlap_lines >= lines:
        raise ConfigError(
            f"camera.overlap_lines: {config.overlap_lines} is not less than the {lines} lines of a "
            f"frame; give at most {lines - 1}"
        )
    return lines
