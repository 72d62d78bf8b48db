"""Backend for GigE Vision and USB3 Vision cameras without a vendor's SDK.

A loss is no block for 0.5 s and no reply, or loss of control. At standstill a camera is silent but
replies. CameraLost is raised within 2 s.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

import msgspec

from edge_agent.camera.backends.genicam import features, gvcp, viva, viva_nodes
from edge_agent.camera.backends.genicam.block_ids import BlockCount
from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera
from edge_agent.camera.backends.genicam.payload import as_number, fault_of, lines_of
from edge_agent.camera.base import CameraLost, LossReason, StreamCounters
from edge_agent.config.camera import GenicamCamera
from edge_agent.errors import CameraError, one_line
from edge_agent.frame import Block, GapReason, LineSpan

_log = logging.getLogger(__name__)

_SILENCE_S = 0.5
_CHUNKS = ("Timestamp", "EncoderValue", "LineStatusAll")
_ENCODER = "ChunkEncoderValue"
# Formats that the library returns unchanged, without an extra copy.
_AS_SENT = frozenset(
    {"Mono8", "RGB8", "RGB8Packed", "BayerRG8", "BayerGR8", "BayerGB8", "BayerBG8"}
)


class StreamSetup(features.FeatureReport, frozen=True, kw_only=True):
    """Features, packet size and chunks of the stream, and the type of its clock."""

    packet_size: int | None
    chunks: tuple[str, ...]
    tick_hz: int | None
    clock: str


class GenicamBackend:
    """GenICam camera on viva-genicam: GigE Vision or USB3 Vision."""

    live = True

    def __init__(
        self, config: GenicamCamera, camera: Any = None, found: DiscoveredCamera | None = None
    ) -> None:
        """Open the camera and start the stream.

        Args:
            config: The [camera] section.
            camera: Camera that is already open, together with `found`.
            found: Discovery data of `camera`.

        Raises:
            CameraLost: The camera is absent, silent or controlled by another host.
            CameraError: A setting is invalid or refused.
        """
        if camera is None or found is None:
            camera, found = viva.connect(config)
        self._config, self._camera, self._found = config, camera, found
        self._gige = camera.transport == "gige"
        self._ids = BlockCount(wraps=self._gige)
        self.first_block_id: int | None = 1
        self._stream: Any = None
        self._lost = False
        self._errors = viva.library().GenicamError
        try:
            self.opened = self._set_up()
            self._start()
        except self._errors as error:
            self._lost = True
            self.close()
            raise viva.broken(error, found, "cannot be set up") from None
        except CameraError:
            self.close()
            raise
        self._heard_s = time.monotonic()
        for setting in self.opened.settings:
            _log.info("camera: %s", setting)
        _log.info(
            "camera: %s: %s %dx%d, packets of %s bytes, chunks: %s",
            found,
            self.opened.pixel_format,
            self.opened.width_px,
            self.opened.height_px,
            self.opened.packet_size,
            ", ".join(self.opened.chunks) or "none",
        )

    def grab(self, timeout_s: float) -> Block | None:
        """Return the next block, complete or not; None if none arrives within `timeout_s`.

        Raises CameraLost if the stream ended, control was lost or the camera does not reply.
        """
        self._check_control()
        wait_s = max(0.001, min(timeout_s, _SILENCE_S))
        began_s = time.monotonic()
        try:
            frame = self._stream.next_frame(round(wait_s * 1000))
            ended = frame is None
        except self._errors as error:
            # The library raises the same error for a timeout and for an ended stream; an ended
            # stream raises it without waiting.
            frame, ended = None, time.monotonic() - began_s < 0.5 * wait_s
            why = one_line(error)
        else:
            why = "the stream ended"
        now_s = time.monotonic()
        if frame is not None:
            self._heard_s = now_s
            return self._block(frame)
        if ended and wait_s > 0.01:
            raise self._gone(LossReason.NO_DATA, why)
        if now_s - self._heard_s >= 0.9 * _SILENCE_S:
            self._check_control()
            if self._gige and not gvcp.answers(self._found.ip):
                raise self._gone(LossReason.NO_ANSWER, "does not answer any more")
            self._heard_s = time.monotonic()
        return None

    @property
    def nodes(self) -> viva_nodes.VivaNodes:
        """Return the camera's features."""
        return viva_nodes.VivaNodes(self._camera)

    def counters(self) -> StreamCounters:
        """Return the library's stream statistics as counters."""
        stats = self._stream.stats()
        return StreamCounters(
            lost_blocks=stats.frames_missed + stats.frames_backpressure + stats.frames_unsupported,
            lost_packets=stats.packets_missing,
            resent_packets=stats.resend_recovered,
        )

    def close(self) -> None:
        """Release the camera.

        A lost camera gets no stop command, because the command would wait for its reply.
        """
        stream, self._stream = self._stream, None
        camera, self._camera = self._camera, None
        if stream is not None:
            with contextlib.suppress(self._errors):
                if not self._lost:
                    camera.acquisition_stop()
            with contextlib.suppress(self._errors):
                stream.close()
        if camera is not None:
            with contextlib.suppress(self._errors):
                camera.close()

    # Opening.

    def _set_up(self) -> StreamSetup:
        config, nodes = self._config, self.nodes
        with contextlib.suppress(self._errors):
            # A camera lost during streaming still streams, with its size and format locked.
            self._camera.acquisition_stop()
        settings = features.apply(nodes, config.features)
        chunks = self._enable_chunks(nodes)
        pixel_format = features.pixel_format(nodes)
        return StreamSetup(
            camera=self._found,
            settings=settings,
            pixel_format=pixel_format,
            width_px=int(features.value_of(nodes, "Width") or 0),
            height_px=int(features.value_of(nodes, "Height") or 0),
            packet_size=None,
            chunks=chunks,
            tick_hz=viva.tick_hz(self._camera),
            clock=_clock(nodes),
        )

    def _enable_chunks(self, nodes: viva_nodes.VivaNodes) -> tuple[str, ...]:
        wanted = self._config.chunks
        selector = nodes.node("ChunkSelector")
        has = selector.entries if selector else ()
        if wanted == "auto":
            chosen = tuple(one for one in _CHUNKS if one in has)
            if chosen:
                with contextlib.suppress(self._errors):
                    self._camera.configure_chunks(list(chosen))
                    return chosen
            return ()
        for one in wanted:
            if one not in has:
                raise CameraError(
                    f"camera.chunks: {one}: this camera has no such chunk; "
                    f"it has {', '.join(has) or 'none'}"
                )
        if wanted:
            self._camera.configure_chunks(list(wanted))
        return tuple(wanted)

    def _start(self) -> None:
        size = self._config.packet_size
        self._stream = self._camera.stream(
            packet_size=size if isinstance(size, int) else None,
            auto_packet_size=size == "auto",
            packet_delay_ns=self._config.packet_delay_ns,
            deliver_incomplete=True,
        )
        self._camera.acquisition_start()
        if self._config.access == "exclusive" and self._gige:
            viva.make_exclusive(self._camera)
        used = viva.packet_size(self._camera)
        if isinstance(size, int) and used is not None and used > size:
            raise CameraError(f"camera.packet_size: {size}: the camera keeps {used}")
        self.opened = msgspec.structs.replace(self.opened, packet_size=used)

    # Streaming.

    def _check_control(self) -> None:
        if self._camera is None:
            raise CameraLost(LossReason.NO_ANSWER, f"camera {self._found}: closed")
        if self._gige and self._camera.control_state != viva.library().ControlState.HELD:
            raise self._gone(
                LossReason.CONTROL_TAKEN,
                "control of it was lost: to another program or host, by a restart of the camera, "
                "or because its heartbeat timeout went by",
            )

    def _gone(self, reason: LossReason, why: str) -> CameraLost:
        self._lost = True
        return CameraLost(reason, f"camera {self._found}: {why}")

    def _block(self, frame: Any) -> Block:
        now_utc, now = time.time_ns(), time.monotonic_ns()
        chunks = self._chunk_values(frame)
        known = frame.width > 0 and frame.height > 0
        pixel_format = frame.pixel_format if known else self.opened.pixel_format
        fault, reason = fault_of(frame)
        data = None
        if not fault:
            if pixel_format in _AS_SENT and not frame.padding_x:
                data = frame.to_numpy()
            else:
                data, fault = lines_of(frame, pixel_format)
                reason = GapReason.BAD_FRAME if fault else reason
        encoder = chunks.pop(_ENCODER, None)
        return Block(
            data=data,
            pixel_format=pixel_format,
            width_px=frame.width if known else self.opened.width_px,
            span=LineSpan(
                first_line=0,
                line_count=(frame.height if known else self.opened.height_px) or None,
                captured_utc_ns=now_utc,
                captured_monotonic_ns=now,
                encoder_count=None if encoder is None else int(encoder),
            ),
            block_id=self._ids.number(frame.block_id),
            fault=fault,
            fault_reason=reason,
            camera_ns=self._camera_ns(frame.ts_dev),
            camera_clock="ptp" if self.opened.clock == "ptp" else "free",
            chunks=tuple(chunks.items()),
        )

    def _camera_ns(self, ticks: int | None) -> int | None:
        if ticks is None or not self.opened.tick_hz:
            return None
        return ticks * 1_000_000_000 // self.opened.tick_hz

    def _chunk_values(self, frame: Any) -> dict[str, int | float]:
        if not self.opened.chunks or not frame.is_complete or not frame.chunks:
            return {}
        numbers = {n: as_number(text) for n, text in self._camera.chunk_features(frame).items()}
        return {name: number for name, number in numbers.items() if number is not None}


def _clock(nodes: viva_nodes.VivaNodes) -> str:
    """Return "ptp" if the camera is a PTP slave or master, else "free"."""
    for name in ("PtpStatus", "GevIEEE1588Status"):
        if features.value_of(nodes, name) in ("Slave", "Master"):
            return "ptp"
    return "free"
