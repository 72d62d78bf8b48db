"""GenTL backend: cameras and frame grabbers behind a vendor's GenTL producer, by harvesters.

For CoaXPress, Camera Link HS, frame grabbers. Loss is detected only if the producer reports it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.camera.backends.genicam import features
from edge_agent.camera.backends.genicam.block_ids import BlockCount
from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera, choose
from edge_agent.camera.backends.genicam.features import (
    FeatureRefused,
    FeatureReport,
    Kind,
    Node,
    Value,
)
from edge_agent.camera.base import CameraLost, LossReason, StreamCounters
from edge_agent.config.camera import GentlCamera
from edge_agent.errors import CameraError, one_line
from edge_agent.frame import Block, GapReason, LineSpan

Harvester: Any = None
with contextlib.suppress(ImportError):
    from genicam import genapi
    from genicam import gentl as producer
    from harvesters.core import Harvester  # type: ignore[no-redef]

_log = logging.getLogger(__name__)
# Harvesters logs its errors and raises them too; this module reports the exception in one line.
logging.getLogger("harvesters").setLevel(logging.CRITICAL + 1)
logging.getLogger("harvesters.core").setLevel(logging.CRITICAL + 1)

_SILENCE_S = 0.5
_GEV = "GEV"
_KINDS: dict[str, Kind] = {
    "IInteger": "integer",
    "IFloat": "float",
    "IEnumeration": "enumeration",
    "IBoolean": "boolean",
    "IString": "string",
    "ICommand": "command",
}


def devices(cti: str) -> list[DiscoveredCamera]:
    """Return all cameras of a producer; raises CameraError if it cannot be loaded."""
    harvester = _loaded(cti)
    try:
        return [_found(one) for one in harvester.device_info_list]
    finally:
        harvester.reset()


class GentlBackend:
    """Camera or frame grabber of a GenTL producer."""

    live = True

    def __init__(self, config: GentlCamera) -> None:
        self._config = config
        self.first_block_id: int | None = 1
        self._acquirer: Any = None
        self._harvester: Any = _loaded(config.cti)
        try:
            self._open()
        except CameraError:
            self.close()
            raise
        except Exception as error:  # the producer's and harvesters' errors have no common base
            self.close()
            raise CameraLost(LossReason.NO_ANSWER, f"camera.cti: {one_line(error)}") from None

    def _open(self) -> None:
        config = self._config
        wanted = {
            "serial": config.serial,
            "user_name": config.user_name,
            "model": config.model,
            "device_id": config.device_id,
        }
        listed = [_found(one) for one in self._harvester.device_info_list]
        found = choose(listed, wanted)
        try:
            self._acquirer = self._harvester.create(listed.index(found))
        except Exception as error:
            raise CameraLost(
                LossReason.CONTROL_TAKEN, f"camera {found}: cannot be opened: {one_line(error)}"
            ) from None
        self._found = found
        nodes = self.nodes
        settings = features.apply(nodes, config.features)
        pixel_format = features.pixel_format(nodes)
        self._ids = BlockCount(wraps=self._device_type() == _GEV)
        self.opened = FeatureReport(
            camera=found,
            settings=settings,
            pixel_format=pixel_format,
            width_px=int(features.value_of(nodes, "Width") or 0),
            height_px=int(features.value_of(nodes, "Height") or 0),
        )
        self._acquirer.num_buffers = max(
            config.buffers, self._acquirer.min_num_buffers if self._acquirer.data_streams else 0
        )
        self._acquirer.start()
        for setting in settings:
            _log.info("camera: %s", setting)
        _log.info("camera: %s: %s", found, pixel_format)

    def grab(self, timeout_s: float) -> Block | None:
        """Return the next block, None without one in `timeout_s`; raises CameraLost if it fails."""
        if self._acquirer is None:
            raise CameraLost(LossReason.NO_ANSWER, "camera.cti: closed")
        try:
            buffer = self._acquirer.try_fetch(timeout=max(0.001, min(timeout_s, _SILENCE_S)))
        except producer.TimeoutException:
            buffer = None
        except Exception as error:
            raise CameraLost(
                LossReason.NO_ANSWER, f"camera {self._found}: {one_line(error)}"
            ) from None
        if buffer is None:
            if not self._acquirer.is_acquiring():
                raise CameraLost(LossReason.NO_DATA, f"camera {self._found}: stopped")
            return None
        try:
            return self._block(buffer)
        finally:
            buffer.queue()

    @property
    def nodes(self) -> GenapiNodes:
        """Return the camera's features."""
        return GenapiNodes(self._acquirer.remote_device.node_map)

    def counters(self) -> StreamCounters:
        """Return the producer's count of lost buffers, None if it does not count."""
        stream = self._acquirer.data_streams[0].module
        return StreamCounters(lost_blocks=_ask(stream, "num_underrun"))

    def close(self) -> None:
        """Release the camera and the producer. May be called twice."""
        acquirer, self._acquirer = self._acquirer, None
        harvester, self._harvester = self._harvester, None
        if acquirer is not None:
            with contextlib.suppress(Exception):
                acquirer.stop()
            with contextlib.suppress(Exception):
                acquirer.destroy()
        if harvester is not None:
            with contextlib.suppress(Exception):
                harvester.reset()

    def _block(self, buffer: Any) -> Block:
        now_utc, now = time.time_ns(), time.monotonic_ns()
        module = buffer.module
        block_id = _ask(module, "frame_id")
        part = next(iter(buffer.payload.components), None)
        fault, data = "", None
        pixel_format, width = self.opened.pixel_format, self.opened.width_px
        lines: int | None = self.opened.height_px or None
        reason = GapReason.INCOMPLETE
        if not module.is_complete():
            fault = "the producer says that it is incomplete"
        elif part is None or not hasattr(part, "data_format"):
            fault, reason = "has no image", GapReason.BAD_FRAME
        else:
            pixel_format, width, lines = part.data_format, int(part.width), int(part.height)
            # Copy: the buffer's memory returns to the producer.
            data = np.array(part.data, copy=True)
            padding = int(getattr(part, "x_padding", 0) or 0)
            if padding:
                data = data.reshape(lines, -1)[:, : -padding // data.itemsize].copy()
        timestamp = _ask(module, "timestamp_ns")
        return Block(
            data=data,
            pixel_format=pixel_format,
            width_px=width,
            span=LineSpan(
                first_line=0,
                line_count=lines,
                captured_utc_ns=now_utc,
                captured_monotonic_ns=now,
            ),
            block_id=None if block_id is None else self._ids.number(block_id),
            fault=fault,
            fault_reason=reason,
            camera_ns=timestamp,
        )

    def _device_type(self) -> str:
        return str(_ask(self._acquirer.device.module, "tl_type") or "")


class GenapiNodes:
    """NodeMap of the GenICam reference implementation (GenApi)."""

    def __init__(self, node_map: Any) -> None:
        self._map = node_map

    def names(self) -> list[str]:
        """Return the names of all features."""
        return sorted(one.node.name for one in self._map.nodes if one.node.is_feature())

    def node(self, name: str) -> Node | None:
        """Return the feature's current state, or None if the camera does not have it."""
        if not self._map.has_node(name):
            return None
        one = self._map.get_node(name)
        access = one.get_access_mode()
        if access == genapi.EAccessMode.NI:
            return None
        kind = _KINDS.get(type(one).__name__, "other")
        number = kind in ("integer", "float")
        readable = access in (genapi.EAccessMode.RO, genapi.EAccessMode.RW) and kind in (
            "integer",
            "float",
            "enumeration",
            "boolean",
            "string",
        )
        return Node(
            name=name,
            kind=kind,
            value=_ask(one, "value") if readable else None,
            writable=access in (genapi.EAccessMode.WO, genapi.EAccessMode.RW),
            minimum=_ask(one, "min") if number else None,
            maximum=_ask(one, "max") if number else None,
            increment=_ask(one, "inc") if kind == "integer" else None,
            entries=tuple(one.symbolics) if kind == "enumeration" else (),
            unit=str(_ask(one, "unit") or "") if number else "",
        )

    def write(self, node: Node, value: Value) -> None:
        """Write a value or execute a command; raises FeatureRefused."""
        one = self._map.get_node(node.name)
        try:
            if node.kind == "command":
                one.execute()
            else:
                one.value = value
        except Exception as error:  # GenApi's errors have no narrower common base
            raise FeatureRefused(one_line(error)) from None


def _loaded(cti: str) -> Any:
    if Harvester is None:
        raise CameraError(
            "camera.kind: gentl: the packages harvesters and genicam are not installed; "
            "install linegate[gentl]"
        )
    if not Path(cti).is_file():
        raise CameraError(
            f"camera.cti: {cti}: no such file; give the .cti of the vendor's GenTL producer, "
            "see the folders in $GENICAM_GENTL64_PATH"
        )
    harvester = Harvester()
    try:
        harvester.add_file(cti, check_existence=True, check_validity=True)
        harvester.update()
    except Exception as error:
        with contextlib.suppress(Exception):
            harvester.reset()
        raise CameraError(
            f"camera.cti: {cti}: is not a GenTL producer: {one_line(error)}"
        ) from None
    return harvester


def _found(device: Any) -> DiscoveredCamera:
    def text(name: str) -> str:
        return str(_ask(device, name) or "")

    return DiscoveredCamera(
        kind="gentl",
        transport=text("tl_type"),
        serial=text("serial_number"),
        user_name=text("user_defined_name"),
        vendor=text("vendor"),
        model=text("model"),
        device_id=text("id_"),
    )


def _ask(module: Any, name: str) -> Any:
    """Return an attribute, or None if the producer does not provide it."""
    try:
        return getattr(module, name)
    except Exception:  # producers raise different types for a missing value
        return None
