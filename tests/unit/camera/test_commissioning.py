"""Light, focus, rates and the verdict."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_agent.camera.base import CameraCounts
from edge_agent.camera.commissioning import BlockRecorder, exposure, focus
from edge_agent.camera.test_report import judge, table
from edge_agent.frame import Block, LineSpan


def _block(number: int, ms: float, *, fault: str = "", camera: bool = True) -> Block:
    return Block(
        data=None if fault else np.zeros((10, 100), np.uint8),
        pixel_format="Mono8",
        width_px=100,
        span=LineSpan(
            first_line=0,
            line_count=10,
            captured_utc_ns=0,
            captured_monotonic_ns=round(ms * 1e6) + 3_000_000 * (number % 2),
        ),
        block_id=number,
        camera_ns=round(ms * 1e6) if camera else None,
        fault=fault,
    )


def _counts(missing: int = 0, losses: int = 0) -> CameraCounts:
    return CameraCounts(
        losses=losses,
        blocks_taken=0,
        blocks_missing=missing,
        blocks_duplicate=0,
        blocks_late=0,
        blocks_rejected={},
        packets_lost=0,
        packets_resent=0,
    )


def _tap(*blocks: Block) -> BlockRecorder:
    tap = BlockRecorder()
    for one in blocks:
        tap.take(one)
    return tap


class TestLight:
    def test_of_a_ramp(self) -> None:
        light = exposure(np.tile(np.arange(256, dtype=np.uint8), (4, 1)))
        assert (light.mean, light.p1, light.p50, light.p99) == (127.5, 2, 127, 253)
        assert light.histogram == (0.0625,) * 16
        assert light.black_share == light.saturated_share == 1 / 256

    def test_of_white_rgb(self) -> None:
        light = exposure(np.full((4, 4, 3), 255, np.uint8))
        assert (light.mean, light.saturated_share) == (255, 1)
        assert light.bars == " " * 15 + "█"


class TestFocus:
    def test_a_blurred_image_has_less(self) -> None:
        sharp = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
        blurred = cv2.GaussianBlur(sharp, (9, 9), 2)
        measures = [focus(one) for one in (sharp, blurred)]
        assert None not in measures
        assert measures[0] > 5 * measures[1]  # type: ignore[operator]

    def test_more_light_is_not_more_focus(self) -> None:
        dark = np.random.default_rng(0).integers(0, 100, (64, 64), dtype=np.uint8)
        assert focus(dark * 2) == pytest.approx(focus(dark))

    def test_of_black_there_is_none(self) -> None:
        assert focus(np.zeros((4, 4), np.uint8)) is None

    def test_of_rgb(self) -> None:
        grey = np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)
        assert focus(np.dstack([grey] * 3)) == pytest.approx(focus(grey), rel=1e-4)


class TestTap:
    def test_intervals_are_the_cameras_where_it_has_a_clock(self) -> None:
        tap = _tap(*(_block(n, 20 * n) for n in range(1, 11)))
        assert tap.interval is not None
        assert (tap.interval.clock, tap.interval.p50_ms, tap.interval.stdev_ms) == ("camera", 20, 0)
        host = _tap(*(_block(n, 20 * n, camera=False) for n in range(1, 11))).interval
        assert host is not None
        assert (host.clock, host.stdev_ms > 2) == ("host", True)

    def test_a_missing_block_is_no_long_interval(self) -> None:
        tap = _tap(*(_block(n, 20 * n) for n in (1, 2, 3, 6, 7, 8)))
        assert tap.interval is not None
        assert tap.interval.max_ms == 20

    def test_rates(self) -> None:
        tap = _tap(*(_block(n, 20 * n) for n in range(2, 103, 2)))
        assert tap.blocks_per_second == pytest.approx(25)
        assert tap.lines_per_second == pytest.approx(250)

    def test_nothing_came(self) -> None:
        tap = BlockRecorder()
        assert (tap.blocks_per_second, tap.lines_per_second, tap.interval) == (None, None, None)


class TestVerdict:
    def test_all_complete_passes(self) -> None:
        tap = _tap(*(_block(n, 20 * n) for n in range(1, 11)))
        verdict = judge(tap, _counts(), seconds=1, cpu_s=0.01, packet_size=9000)
        assert verdict.passed
        assert (verdict.blocks_complete, verdict.cpu_ms_per_block) == (10, 1.0)
        assert verdict.advice == ()
        assert "verdict: pass" in table(verdict)

    @pytest.mark.parametrize(
        ("tap", "counts"),
        [
            (_tap(_block(1, 20), _block(2, 40, fault="1 of its packets never came")), _counts()),
            (_tap(_block(1, 20), _block(3, 60)), _counts(missing=1)),
            (_tap(_block(1, 20)), _counts(losses=1)),
            (BlockRecorder(), _counts()),
        ],
    )
    def test_each_loss_fails_and_says_what_to_do(
        self, tap: BlockRecorder, counts: CameraCounts
    ) -> None:
        verdict = judge(tap, counts, seconds=1, cpu_s=0)
        assert not verdict.passed
        assert verdict.advice
        assert "verdict: fail" in table(verdict)

    def test_a_small_receive_buffer_is_named_when_packets_are_lost(self) -> None:
        tap = _tap(_block(1, 20), _block(3, 60))
        advice = judge(tap, _counts(1), seconds=1, cpu_s=0, receive_buffer_bytes=3999).advice
        assert any("net.core.rmem_max is 3999" in line for line in advice)
        advice = judge(tap, _counts(1), seconds=1, cpu_s=0, receive_buffer_bytes=4000).advice
        assert not any("rmem_max" in line for line in advice)

    def test_larger_packets_are_advised_where_they_pass(self) -> None:
        tap = _tap(*(_block(n, 20 * n) for n in range(1, 4)))
        verdict = judge(
            tap,
            _counts(),
            seconds=1,
            cpu_s=0,
            packet_size=1500,
            recommended_packet_size=8192,
            mtu=9000,
        )
        assert verdict.passed
        assert verdict.recommended_packet_size == 8192
        assert "8192 bytes pass" in verdict.advice[0]

    def test_jumbo_frames_are_advised_on_a_plain_network(self) -> None:
        tap = _tap(*(_block(n, 20 * n) for n in range(1, 4)))
        verdict = judge(
            tap,
            _counts(),
            seconds=1,
            cpu_s=0,
            packet_size=1500,
            recommended_packet_size=1500,
            mtu=1500,
        )
        assert "MTU is 1500" in verdict.advice[0]

    def test_uneven_intervals_are_named(self) -> None:
        at = np.cumsum([20, 20, 20, 20, 20, 60, 20, 20]).tolist()
        tap = _tap(*(_block(n, ms) for n, ms in enumerate(at, 1)))
        assert any("uneven" in line for line in judge(tap, _counts(), seconds=1, cpu_s=0).advice)
