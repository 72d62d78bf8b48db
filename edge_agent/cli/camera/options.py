"""Camera options shared by all commands that open a camera, and the settings they make."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.errors import ConfigError

if TYPE_CHECKING:
    from edge_agent.config.camera import Camera as CameraConfig

_KINDS = ("genicam", "gentl", "v4l2", "rtsp", "gstreamer", "video", "folder", "simulated")
_KEYS = ("serial", "user_name", "mac", "ip", "cti", "device", "url", "path")


def camera_options(parser: argparse.ArgumentParser) -> None:
    """Add --config, --kind, --set and one option per key that selects a camera."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML; its [camera] is used")
    parser.add_argument("--kind", choices=_KINDS, help="instead of --config")
    for key in _KEYS:
        parser.add_argument(f"--{key.replace('_', '-')}", metavar="X", help=f"camera.{key}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="camera.features.Width=2048"
    )


def camera_of(args: argparse.Namespace) -> CameraConfig:
    """Return the camera's configuration from the arguments. Raises ConfigError."""
    from edge_agent.config import loader
    from edge_agent.config.camera import CameraFile

    # Quoted, so that a serial number of digits stays text.
    given = {key: value for key in _KEYS if (value := getattr(args, key)) is not None}
    overrides = tuple(f"camera.{key}={json.dumps(value)}" for key, value in given.items())
    overrides += tuple(args.set)
    if args.config:
        if args.kind:
            raise ConfigError("--kind: is in the file of --config; give one of the two")
        return loader.load(args.config, CameraFile, overrides).camera
    if not args.kind:
        raise ConfigError("--config or --kind: give one; `edge-agent camera list` shows cameras")
    tree = {"camera": {"kind": args.kind}}
    return loader.override(tree, CameraFile, overrides, "edge-agent camera").camera
