"""Command `camera info`: features of a camera, after they were set or in read-only access."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_agent.cli.camera import text
from edge_agent.cli.camera.options import camera_of, camera_options
from edge_agent.cli.common import Commands, add
from edge_agent.cli.kit import json_option
from edge_agent.errors import ConfigError

if TYPE_CHECKING:
    from edge_agent.camera.backends.genicam.features import Node, NodeMap
    from edge_agent.config.camera import Camera as CameraConfig
    from edge_agent.config.camera import GenicamCamera

_SHOWN = (
    "DeviceVendorName",
    "DeviceModelName",
    "DeviceSerialNumber",
    "DeviceUserID",
    "DeviceFirmwareVersion",
    "DeviceTemperature",
    "DeviceScanType",
    "Width",
    "Height",
    "OffsetX",
    "PixelFormat",
    "ExposureTime",
    "Gain",
    "AcquisitionMode",
    "AcquisitionFrameRate",
    "AcquisitionLineRate",
    "TriggerSelector",
    "TriggerMode",
    "TriggerSource",
    "ScanLengthUnit",
    "EncoderSelector",
    "EncoderSourceA",
    "EncoderSourceB",
    "PayloadSize",
    "GevSCPSPacketSize",
    "GevSCPD",
    "GevHeartbeatTimeout",
    "PtpStatus",
    "ChunkModeActive",
)


def register(acts: Commands) -> None:
    """Add the command `info`."""
    info = add(
        acts,
        "info",
        "open a camera, set its features, read them back",
        "camera info --config line.toml",
        _info,
    )
    info.add_argument("--all", action="store_true", help="every feature, with its range")
    info.add_argument(
        "--read-only", action="store_true", help="set nothing; GigE: also beside a running agent"
    )
    camera_options(info)
    json_option(info)


def _info(args: argparse.Namespace) -> None:
    from edge_agent.config.camera import GenicamCamera

    config = camera_of(args)
    if args.read_only and isinstance(config, GenicamCamera):
        looked = _monitored(config, every=args.all)
    elif args.read_only and getattr(config, "features", None):
        raise ConfigError("--read-only: only a genicam camera can be looked at so; leave it out")
    else:
        looked = _opened(config, args.kind or "", every=args.all)
    print(text.looked_as_json(looked) if args.json else text.looked(looked))


def _opened(config: CameraConfig, kind: str, *, every: bool) -> text.CameraInfo:
    """Open the camera, set its features and read them back; or describe its first block."""
    from edge_agent.camera import open_backend
    from edge_agent.cli.camera.session import first_block

    backend = open_backend(config)
    try:
        opened = getattr(backend, "opened", None)
        if opened is not None:
            nodes = backend.nodes  # type: ignore[attr-defined]  # a backend with `opened` has `nodes`
            return text.CameraInfo(opened, _features(nodes, every=every))
        block = first_block(backend)
        return text.CameraInfo(
            text.CameraFirstBlock(
                kind=kind,
                pixel_format=block.pixel_format,
                width_px=block.width_px,
                height_px=block.span.line_count,
            )
        )
    finally:
        backend.close()


def _monitored(config: GenicamCamera, *, every: bool) -> text.CameraInfo:
    """Read the features of a camera that another program may control; set nothing."""
    from edge_agent.camera.backends.genicam import viva, viva_nodes

    camera, found = viva.connect(config, monitor=True)
    try:
        rows = _features(viva_nodes.VivaNodes(camera), every=every)
        return text.CameraInfo(
            text.CameraMonitored(camera=found, packet_size=viva.packet_size(camera)), rows
        )
    finally:
        camera.close()


def _features(nodes: NodeMap, *, every: bool) -> tuple[Node, ...]:
    """Return the features to show; `every` is all of them."""
    names = nodes.names() if every else [name for name in _SHOWN if nodes.node(name)]
    read = [nodes.node(name) for name in names]
    return tuple(one for one in read if one is not None and one.kind != "other")
