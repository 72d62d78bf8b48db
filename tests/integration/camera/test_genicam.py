"""GigE Vision cameras on the wire: Aravis' simulated one, and viva-genicam's with its faults."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import viva_genicam
from viva_genicam.testing import FakeGigeCamera, FakeU3vCamera

from edge_agent.camera import Backend, CameraLost, LossReason
from edge_agent.camera.backends.genicam import features
from edge_agent.camera.backends.genicam.backend import GenicamBackend
from edge_agent.camera.backends.genicam.discovery import DiscoveredCamera
from edge_agent.camera.line_camera import LineCamera
from edge_agent.camera.stream.pixel_formats import decode
from edge_agent.config.camera import GenicamCamera
from edge_agent.errors import CameraError
from edge_agent.frame import Block, Frame, Gap, GapReason
from tests.support.fake_cameras import LONG

pytestmark = pytest.mark.system

_SMALL: dict[str, Any] = {"Width": 256, "Height": 64, "AcquisitionFrameRate": 1000.0}
_REGISTERS = FakeGigeCamera.REGISTERS


@contextlib.contextmanager
def opened(**keys: Any) -> Iterator[GenicamBackend]:
    backend = GenicamBackend(GenicamCamera(**keys))
    try:
        yield backend
    finally:
        backend.close()


def taken(backend: Backend, blocks: int) -> list[Block]:
    got: list[Block] = []
    end_s = time.monotonic() + 60
    while len(got) < blocks:
        assert time.monotonic() < end_s, f"{len(got)} of {blocks} blocks"
        block = backend.grab(0.5)
        if block is not None:
            got.append(block)
    return got


def lost(backend: Backend) -> CameraLost:
    """How the camera is lost, which it must be."""
    end_s = time.monotonic() + 30
    with pytest.raises(CameraLost) as raised:
        while time.monotonic() < end_s:
            backend.grab(0.5)
    return raised.value


class Seen:
    """A backend that keeps the camera's own count of what came."""

    def __init__(self, backend: Backend, ids: list[int]) -> None:
        self._backend, self._ids = backend, ids
        self.live, self.first_block_id = backend.live, backend.first_block_id
        self.counters, self.close = backend.counters, backend.close

    def grab(self, timeout_s: float) -> Block | None:
        block = self._backend.grab(timeout_s)
        if block is not None and block.block_id is not None:
            self._ids.append(block.block_id)
        return block


class TestAravis:
    def test_is_opened_by_each_of_its_names(self, aravis: Callable[..., Any]) -> None:
        aravis(serial="LINE-7")
        for names in ({"serial": "LINE-7"}, {"ip": "127.0.0.1"}, {"mac": "00-00-00-00-00-00"}, {}):
            with opened(**names, interface="lo") as camera:
                assert camera.opened.camera.serial == "LINE-7"

    def test_features_are_set_in_order_and_read_back(self, aravis: Callable[..., Any]) -> None:
        aravis()
        wanted: dict[str, Any] = {
            **_SMALL,
            "PixelFormat": "Mono16",
            "ExposureTimeAbs": 1234,
            "TestBoolean": True,
        }
        with opened(serial="LINE-A", features=wanted) as camera:
            assert [one.name for one in camera.opened.settings] == list(wanted)
            assert {one.name: one.value for one in camera.opened.settings} == wanted
            (block,) = taken(camera, 1)
        assert (block.pixel_format, block.width_px, block.span.line_count) == ("Mono16", 256, 64)
        assert block.data is not None
        assert block.data.nbytes == 2 * 256 * 64

    def test_a_feature_is_set_under_two_selectors(self, aravis: Callable[..., Any]) -> None:
        aravis()
        tables = (
            {"TriggerSelector": "AcquisitionStart", "TriggerMode": "Off"},
            {"TriggerSelector": "FrameStart", "TriggerMode": "Off"},
        )
        with opened(features=tables) as camera:
            assert [one.wanted for one in camera.opened.settings] == [
                *("AcquisitionStart", "Off", "FrameStart", "Off")
            ]

    def test_formats_become_frames(self, aravis: Callable[..., Any]) -> None:
        aravis()
        for pixel_format in ("Mono8", "Mono16", "RGB8", "BayerRG8"):
            config = GenicamCamera(features={**_SMALL, "PixelFormat": pixel_format})
            camera = LineCamera(partial(GenicamBackend, config), check_images=False)
            try:
                # On a busy machine a gap may come first.
                frame = _take_frames(camera, 1)[-1]
            finally:
                camera.close()
            colour = pixel_format in ("RGB8", "BayerRG8")
            assert isinstance(frame, Frame)
            assert frame.image.shape == ((64, 256, 3) if colour else (64, 256))
            assert frame.image.any()

    def test_2000_frames_are_each_complete_or_missing_from_the_count(
        self, aravis: Callable[..., Any]
    ) -> None:
        aravis()
        ids: list[int] = []
        config = GenicamCamera(features=_SMALL)
        camera = LineCamera(lambda: Seen(GenicamBackend(config), ids), check_images=False)
        try:
            count = balance(camera, ids, 2000)
        finally:
            camera.close()
        # Loopback loses nothing by itself; a machine that is busy may drop a few.
        assert count["frames"] > 1500

    @pytest.mark.parametrize("lost_per_thousand", [5, 50])
    def test_lost_packets_are_declared_and_the_sum_is_the_cameras(
        self, aravis: Callable[..., Any], lost_per_thousand: int
    ) -> None:
        aravis(lost_per_thousand=lost_per_thousand)
        ids: list[int] = []
        features = {"Width": 1600, "Height": 256, "AcquisitionFrameRate": 100.0}
        config = GenicamCamera(features=features, packet_size=9000)
        camera = LineCamera(lambda: Seen(GenicamBackend(config), ids), check_images=False)
        try:
            count = balance(camera, ids, 2000 if LONG else 300)
        finally:
            camera.close()
        assert count["incomplete"] > 0
        if lost_per_thousand == 50:  # of 48 packets a block hardly one is whole
            assert count["incomplete"] > count["frames"]

    def test_a_killed_camera_is_lost_and_comes_back_with_its_features(
        self, aravis: Callable[..., Any]
    ) -> None:
        camera_process = aravis()
        # So slow that a busy machine keeps up: of a camera that loses many blocks the state is
        # impaired, and not streaming.
        features = {**_SMALL, "AcquisitionFrameRate": 50.0, "GainRaw": 7}
        config = GenicamCamera(features=features)
        sessions: list[GenicamBackend] = []

        def open_it() -> GenicamBackend:
            sessions.append(GenicamBackend(config))
            return sessions[-1]

        camera = LineCamera(open_it, check_images=False)
        try:
            for _ in range(20):
                assert camera.grab(5) is not None
            camera_process.kill()
            _until(camera, lambda: camera.status.state == "lost")
            assert camera.status.reason == "no_answer"
            camera_process.start()
            gaps = _until(camera, lambda: camera.status.state == "streaming", frames_after=20)
        finally:
            camera.close()
        # A busy machine may lose blocks besides.
        (outage,) = (one for one in gaps if one.line_count is None)
        assert outage.reason is GapReason.CAMERA_LOSS
        assert "no_answer" in outage.detail
        assert {one.name: one.value for one in sessions[-1].opened.settings}["GainRaw"] == 7
        assert camera.counts.losses == 1

    def test_a_camera_that_hangs_is_lost(self, aravis: Callable[..., Any]) -> None:
        process = aravis()
        with opened(features=_SMALL) as camera:
            taken(camera, 5)
            process.freeze()
            began_s = time.monotonic()
            why = lost(camera)
            lost_s = time.monotonic() - began_s
            process.thaw()
        assert why.reason is LossReason.NO_ANSWER
        if LONG:
            assert lost_s < 2

    def test_one_that_restarts_at_once_is_lost_too(self, aravis: Callable[..., Any]) -> None:
        process = aravis()
        with opened(features=_SMALL) as camera:
            taken(camera, 5)
            process.kill()
            process.start()
            assert lost(camera).reason in (LossReason.CONTROL_TAKEN, LossReason.NO_ANSWER)

    def test_a_camera_that_waits_for_its_trigger_is_silent_and_not_lost(
        self, aravis: Callable[..., Any]
    ) -> None:
        aravis()
        features = {**_SMALL, "TriggerMode": "On", "TriggerSource": "Software"}
        with opened(features=features) as camera:
            assert [camera.grab(0.5) for _ in range(5)] == [None] * 5

    def test_reconnects_leave_nothing_behind(self, aravis: Callable[..., Any]) -> None:
        aravis()

        def left() -> tuple[int, int]:
            return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208

        held = []
        for _ in range(1000 if LONG else 4):
            with opened(features=_SMALL) as camera:
                taken(camera, 1)
            held.append(left())
        # The library's own threads and sockets are there from the first on.
        assert held[-1][0] <= held[1][0]
        assert held[-1][1] <= held[1][1] + 2

    def test_a_second_host_is_refused_and_told_why(self, aravis: Callable[..., Any]) -> None:
        aravis()
        with opened(), pytest.raises(CameraLost, match="has control of it") as refused:
            GenicamBackend(GenicamCamera())
        assert refused.value.reason is LossReason.CONTROL_TAKEN

    def test_heartbeat_packet_size_and_delay_reach_the_camera(
        self, aravis: Callable[..., Any]
    ) -> None:
        aravis()
        with opened(heartbeat_ms=1500, packet_size=4000, packet_delay_ns=2000) as camera:
            control = camera._camera
            assert int.from_bytes(control.read_register(0x0938, 4), "big") == 1500
            assert camera.opened.packet_size == 4000
            assert int.from_bytes(control.read_register(0x0D08, 4), "big") == 2000

    def test_what_the_camera_does_not_take_is_one_line(self, aravis: Callable[..., Any]) -> None:
        aravis()
        with opened() as camera:
            for table, text in (
                ({"Widht": 1600}, "Widht: this camera has no such feature; did you mean Width"),
                ({"Qqqqq": 1600}, "Qqqqq: this camera has no such feature; see `edge-agent camera"),
                ({"Width": 9999}, "Width: 9999: out of range, 1 to 2048 now"),
                ({"GainRaw": -1}, "GainRaw: -1: out of range, 0 to 10 now"),
                ({"ExposureTimeAbs": 0.5}, "out of range, 10 to 10000000 now"),
                ({"Width": 16.5}, "Width: 16.5: give a whole number"),
                ({"Width": "wide"}, "Width: 'wide': give a whole number"),
                ({"PixelFormat": "Mono99"}, "Mono99: not one of BayerBG8, BayerGB8"),
                ({"TestBoolean": 1}, "TestBoolean: 1: is a boolean; give true or false"),
                ({"SensorWidth": 7}, "SensorWidth: 7: it cannot be written now"),
                ({"TriggerSoftware": False}, "give true, which executes it"),
                ({"ImageFormatControl": 1}, "is not a feature that has one value"),
            ):
                with pytest.raises(CameraError) as refused:
                    features.apply(camera.nodes, table)  # type: ignore[arg-type]
                assert text in str(refused.value)
                assert str(refused.value).startswith("camera.features.")
                assert "\n" not in str(refused.value)
                assert not isinstance(refused.value, CameraLost)

    @pytest.mark.parametrize("keys", [{"features": {"Width": 9999}}, {"chunks": ("EncoderValue",)}])
    def test_a_refused_camera_is_free_again(
        self, aravis: Callable[..., Any], keys: dict[str, Any]
    ) -> None:
        aravis()
        with pytest.raises(CameraError):
            GenicamBackend(GenicamCamera(**keys))
        with opened():
            pass


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"ip": "10.98.76.54"}, "camera.ip: 10.98.76.54: in another subnet than this host"),
        ({"ip": "300.1.1.1"}, "camera.ip: 300.1.1.1: not an IPv4 address"),
        ({"interface": "eth99"}, "camera.interface: eth99: this host has no such interface"),
    ],
)
def test_what_cannot_be_on_this_wire_is_refused_without_asking_it(
    keys: dict[str, str], text: str
) -> None:
    with pytest.raises(CameraError, match=text) as refused:
        GenicamBackend(GenicamCamera(**keys))
    assert not isinstance(refused.value, CameraLost)


@contextlib.contextmanager
def viva_fake(**options: Any) -> Iterator[FakeGigeCamera]:
    with FakeGigeCamera(**{"width": 320, "height": 64, "fps": 60} | options) as fake:
        yield fake


@pytest.mark.usefixtures("gvcp_port")
class TestViva:
    def test_is_opened_by_its_name(self) -> None:
        with viva_fake(), opened(user_name="FakeCamera") as camera:
            assert camera.opened.camera.serial == "FAKE-001"
            assert taken(camera, 3)[0].block_id == 1

    def test_chunks_come_with_their_block(self) -> None:
        with viva_fake(), opened(chunks=("Timestamp", "ExposureTime")) as camera:
            block = taken(camera, 2)[1]
        values = dict(block.chunks)
        assert values["ChunkExposureTime"] == 5000
        assert values["ChunkTimestamp"] == block.camera_ns
        assert block.data is not None
        assert block.data.size == 320 * 64

    def test_chunks_are_found_by_themselves(self) -> None:
        with viva_fake(), opened() as camera:
            assert camera.opened.chunks == ("Timestamp",)

    @pytest.mark.parametrize(
        "pixel_format", ["Mono10", "Mono10p", "Mono12p", "Mono12Packed", "BGR8"]
    )
    def test_deep_and_packed_formats_become_8_bits(self, pixel_format: str) -> None:
        """Against the library's own unpacking: the upper 8 bits of each value."""
        bits = 12 if "12" in pixel_format else 10 if "10" in pixel_format else 8
        with viva_fake(pixel_format=pixel_format), opened() as camera:
            ours = {block.block_id: block for block in taken(camera, 5) if not block.fault}
        theirs = {}
        with (
            viva_fake(pixel_format=pixel_format) as fake,
            viva_genicam.connect_gige(fake.device_info()) as plain,
            plain.stream() as stream,
        ):
            for _ in range(5):
                frame = stream.next_frame(5000)
                assert frame is not None
                theirs[frame.block_id] = frame.to_numpy()
        # The test pattern moves from block to block, in the same way each time.
        both = ours.keys() & theirs.keys()
        assert both
        for number in both:
            block = ours[number]
            assert block.data is not None
            image = decode(block.data, block.pixel_format, 64, 320, colour=True)
            np.testing.assert_array_equal(image, (theirs[number] >> (bits - 8)).astype(np.uint8))

    def test_packets_that_never_came_are_a_gap_and_the_rest_is_whole(self) -> None:
        """Packets are numbered from 0, the leader; this camera sends none again."""
        never = [(3, 2), (5, 1), (5, 2), (9, 3)]
        ids: list[int] = []
        with viva_fake(width=640, drop_packets=never, packet_resend=False, fps=30) as fake:
            camera = LineCamera(
                lambda: Seen(GenicamBackend(GenicamCamera(packet_size=9000)), ids),
                check_images=False,
            )
            items = _take_frames(camera, 20)
            camera.close()
            sent = fake.blocks_sent()
        declared = set()
        for one in items:
            if isinstance(one, Gap):
                first = one.first_line // 64 + 1
                declared |= set(range(first, first + one.frame_count))
        assert {3, 5, 9} <= declared
        assert GapReason.INCOMPLETE in {one.reason for one in items if isinstance(one, Gap)}
        frames = sum(isinstance(one, Frame) for one in items)
        assert frames + len(declared) == ids[-1] <= sent
        if LONG:  # a busy machine may lose more by itself
            assert declared == {3, 5, 9}

    def test_lost_packets_are_sent_again_where_the_camera_can(self) -> None:
        lost_at_first = {3: 2, 5: 1, 9: 3}
        with (
            viva_fake(width=640, drop_packets=list(lost_at_first.items()), fps=30),
            opened(packet_size=9000) as camera,
        ):
            whole = {block.block_id for block in taken(camera, 15) if not block.fault}
            resent = camera.counters().resent_packets
        came = whole & lost_at_first.keys()
        assert came
        assert (resent or 0) >= len(came)
        if LONG:  # on a busy machine one may come too late
            assert len(came) == 3

    def test_slow_acknowledgements_are_waited_for(self) -> None:
        late = {_REGISTERS["ExposureTime"]: 0.4, _REGISTERS["Width"]: 0.4}
        features = {"Width": 640, "ExposureTime": 2000.0}
        with viva_fake(delay_ack=late), opened(features=features) as camera:
            assert [one.value for one in camera.opened.settings] == [640, 2000.0]
            assert taken(camera, 1)[0].width_px == 640

    def test_a_late_heartbeat_is_no_loss(self) -> None:
        with viva_fake(delay_ack={_REGISTERS["CCP"]: 0.3}), opened() as camera:
            end_s = time.monotonic() + 2
            while time.monotonic() < end_s:
                camera.grab(0.5)
            assert len(taken(camera, 5)) == 5

    def test_revoked_control_is_a_loss_and_the_camera_is_set_up_again(self) -> None:
        with viva_fake() as fake:
            config = GenicamCamera(features={"Gain": 6.0})
            camera = LineCamera(lambda: GenicamBackend(config), check_images=False)
            try:
                _take_frames(camera, 5)
                fake.revoke_control()
                _until(camera, lambda: camera.status.state == "lost")
                assert camera.status.reason == "control_taken"
                gaps = _until(camera, lambda: camera.status.state == "streaming", frames_after=5)
                (outage,) = (one for one in gaps if one.line_count is None)
                assert "control_taken" in outage.detail
                assert fake.controller() is not None
            finally:
                camera.close()
            assert fake.controller() is None

    def test_what_a_stream_locks_cannot_be_set(self) -> None:
        with viva_fake(), opened() as camera:
            with pytest.raises(CameraError, match="Width: 640: it cannot be written now"):
                features.apply(camera.nodes, {"Width": 640})
            assert features.apply(camera.nodes, {"Gain": 3})[0].value == 3.0

    def test_exclusive_access_reaches_the_camera_and_holds(self) -> None:
        with viva_fake() as fake, opened(access="exclusive") as camera:
            assert fake.peek(_REGISTERS["CCP"], 4)[-1] & 1
            taken(camera, 120)  # 2 s at the camera's rate, or longer
            assert fake.peek(_REGISTERS["CCP"], 4)[-1] & 1

    def test_a_format_of_the_camera_that_cannot_be_decoded_is_refused(self) -> None:
        with (
            viva_fake(),
            pytest.raises(CameraError, match="PixelFormat: YUV: not one of Mono8, Mono16"),
        ):
            GenicamBackend(GenicamCamera(features={"PixelFormat": "YUV"}))


def test_usb3_vision_blocks_come_from_a_camera_that_is_open() -> None:
    """No USB bus is needed; no USB3 Vision hardware was at hand."""
    found = DiscoveredCamera(kind="genicam", transport="usb3", serial="U3V")
    config = GenicamCamera(transport="usb3", features={"Width": 320})
    backend = GenicamBackend(config, FakeU3vCamera(640, 480).connect(), found)
    try:
        blocks = taken(backend, 5)
        assert [one.block_id for one in blocks] == [1, 2, 3, 4, 5]
        assert (blocks[0].width_px, blocks[0].pixel_format) == (320, "Mono8")
        assert backend.counters().lost_blocks == 0
        assert backend.opened.packet_size is None
    finally:
        backend.close()


def test_no_usb3_vision_camera_is_said_in_one_line() -> None:
    with pytest.raises(CameraLost, match=r"camera\.serial: 7: no such camera answers"):
        GenicamBackend(GenicamCamera(transport="usb3", serial="7"))


# Counting.


def balance(camera: LineCamera, ids: list[int], blocks: int) -> dict[str, int]:
    """Take until the camera has counted so many, and hold what came against its count."""
    frames = lines = incomplete = missing = 0
    end_s = time.monotonic() + 120
    items: list[Frame | Gap] = []
    while not ids or ids[-1] - ids[0] + 1 < blocks:
        assert time.monotonic() < end_s, f"{len(ids)} of {blocks} blocks"
        one = camera.grab(0.5)
        if one is not None:
            items.append(one)
    items += camera.drain()
    for one in items:
        assert one.first_line == lines
        assert one.line_count is not None
        lines += one.line_count
        if isinstance(one, Frame):
            frames += 1
        elif one.reason is GapReason.INCOMPLETE:
            incomplete += one.frame_count
        else:
            missing += one.frame_count
    counts = camera.counts
    assert frames + incomplete + missing == counts.blocks_taken + counts.blocks_missing
    # The stream may know of blocks after the last one that came.
    assert frames + incomplete + missing >= ids[-1]
    assert frames + incomplete == len(ids)
    return {"frames": frames, "incomplete": incomplete, "missing": missing}


def _take_frames(camera: LineCamera, frames: int) -> list[Frame | Gap]:
    items: list[Frame | Gap] = []
    end_s = time.monotonic() + 60
    while sum(isinstance(one, Frame) for one in items) < frames:
        assert time.monotonic() < end_s
        one = camera.grab(0.5)
        if one is not None:
            items.append(one)
    return items


def _until(
    camera: LineCamera, condition: Callable[[], bool], *, frames_after: int = 0
) -> list[Gap]:
    """Grab until then, and some frames more; the gaps that came."""
    end_s = time.monotonic() + 60
    gaps: list[Gap] = []
    while not condition() or frames_after > 0:
        assert time.monotonic() < end_s
        one = camera.grab(0.5)
        if isinstance(one, Gap):
            gaps.append(one)
        elif one is not None and condition():
            frames_after -= 1
    return gaps
