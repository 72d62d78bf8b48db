"""The result of `camera test`: passed or not, figures, advice, table."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge_agent.camera.base import CameraCounts
from edge_agent.camera.commissioning import (
    BlockInterval,
    BlockRecorder,
)

_JITTER_SHARE = 0.5
"""Share of the median interval; a 99th percentile further above the median is jitter."""
_ETHERNET_MTU, _JUMBO_MTU = 1500, 9000


class CameraTestResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a camera test.

    `passed` is True if every block that the camera counted arrived complete and the camera was
    never lost. `cpu_ms_per_block` is the CPU time of this process per block, frame assembly
    included. `advice` holds one line per item, the most useful first.
    """

    passed: bool
    seconds: float
    blocks_complete: int
    blocks_incomplete: int
    blocks_missing: int
    blocks_duplicate: int
    losses: int
    packets_lost: int | None
    packets_resent: int | None
    blocks_per_second: float | None
    lines_per_second: float | None
    megabytes_per_second: float | None
    interval: BlockInterval | None
    cpu_ms_per_block: float | None
    packet_size: int | None
    recommended_packet_size: int | None
    mtu: int | None
    advice: tuple[str, ...]


def judge(
    tap: BlockRecorder,
    counts: CameraCounts,
    *,
    seconds: float,
    cpu_s: float,
    packet_size: int | None = None,
    recommended_packet_size: int | None = None,
    mtu: int | None = None,
    receive_buffer_bytes: int | None = None,
    live: bool = True,
) -> CameraTestResult:
    """Evaluate a camera test.

    Args:
        tap: Recorder with all blocks of the test.
        counts: Counts of the camera.
        seconds: Duration of the test.
        cpu_s: CPU time of this process during the test.
        packet_size: Packet size in use, in bytes.
        recommended_packet_size: Largest packet size that the network passes, in bytes.
        mtu: MTU of the network interface, in bytes.
        receive_buffer_bytes: Largest socket receive buffer that the kernel allows.
        live: Blocks arrive at the camera's rate, so that their intervals are meaningful.

    Returns:
        The figures, the result and advice.
    """
    incomplete = tap.blocks - tap.complete
    missing = counts.blocks_missing
    passed = tap.blocks > 0 and not incomplete and not missing and not counts.losses
    interval = tap.interval
    advice = list(_advice(tap, counts, interval, receive_buffer_bytes, live=live))
    if recommended_packet_size and packet_size and packet_size < recommended_packet_size:
        advice.append(
            f'camera.packet_size = "auto": {recommended_packet_size} bytes pass, {packet_size} '
            "are used; fewer packets cost less"
        )
    if mtu is not None and recommended_packet_size and mtu <= _ETHERNET_MTU:
        advice.append(
            f"the interface's MTU is {mtu}: set it to {_JUMBO_MTU} here and on the switch, "
            "if both can, and test again"
        )
    rate = tap.blocks_per_second
    return CameraTestResult(
        passed=passed,
        seconds=round(seconds, 3),
        blocks_complete=tap.complete,
        blocks_incomplete=incomplete,
        blocks_missing=missing,
        blocks_duplicate=counts.blocks_duplicate,
        losses=counts.losses,
        packets_lost=counts.packets_lost,
        packets_resent=counts.packets_resent,
        blocks_per_second=_rounded(rate, 2),
        lines_per_second=_rounded(tap.lines_per_second, 1),
        megabytes_per_second=_rounded(tap.bytes / tap.seconds / 1e6 if tap.seconds else None, 2),
        interval=interval,
        cpu_ms_per_block=_rounded(1e3 * cpu_s / tap.blocks if tap.blocks else None, 3),
        packet_size=packet_size,
        recommended_packet_size=recommended_packet_size,
        mtu=mtu,
        advice=tuple(advice),
    )


def _advice(
    tap: BlockRecorder,
    counts: CameraCounts,
    interval: BlockInterval | None,
    receive_buffer_bytes: int | None,
    *,
    live: bool,
) -> Sequence[str]:
    found: list[str] = []
    if not tap.blocks:
        found.append(
            "no block came: if the camera waits for a trigger or the encoder, move the strip; "
            "else see TriggerMode, and whether a firewall lets UDP in from the camera"
        )
    if counts.losses:
        found.append(f"the camera was away {counts.losses} times: cable, power, or another host")
    if tap.blocks > tap.complete or counts.blocks_missing:
        found.append(
            "packets or blocks are lost: see the switch and the cable, then camera.packet_delay_ns"
        )
        block = tap.bytes // max(1, tap.complete)
        if receive_buffer_bytes is not None and receive_buffer_bytes < 4 * block:
            found.append(
                f"sysctl net.core.rmem_max is {receive_buffer_bytes}, less than 4 blocks of "
                f"{block} bytes: raise it"
            )
    if live and interval and interval.p99_ms - interval.p50_ms > _JITTER_SHARE * interval.p50_ms:
        found.append(
            f"intervals are uneven by the {interval.clock}'s clock: half are up to "
            f"{interval.p50_ms:g} ms, one in a hundred is over {interval.p99_ms:g} ms"
        )
    return found


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def table(verdict: CameraTestResult) -> str:
    """Format the result as a text table."""
    rows = [
        ("blocks complete", verdict.blocks_complete),
        ("blocks incomplete", verdict.blocks_incomplete),
        ("blocks missing", verdict.blocks_missing),
        ("packets lost, resent", f"{_or(verdict.packets_lost)}, {_or(verdict.packets_resent)}"),
        ("camera away", f"{verdict.losses} times"),
        (
            "rate",
            f"{_or(verdict.blocks_per_second)} blocks/s, {_or(verdict.lines_per_second)} "
            f"lines/s, {_or(verdict.megabytes_per_second)} MB/s",
        ),
    ]
    if verdict.interval:
        of = verdict.interval
        rows.append(
            (
                f"interval ({of.clock} clock)",
                f"p50 {of.p50_ms:g}, p99 {of.p99_ms:g}, max {of.max_ms:g}, sd {of.stdev_ms:g} ms",
            )
        )
    rows.append(("CPU per block", f"{_or(verdict.cpu_ms_per_block)} ms"))
    if verdict.packet_size:
        recommended = _or(verdict.recommended_packet_size)
        rows.append(("packet size", f"{verdict.packet_size} bytes, recommended {recommended}"))
    text = [f"{name:<24} {value}" for name, value in rows]
    text += [f"- {line}" for line in verdict.advice]
    text.append(f"verdict: {'pass' if verdict.passed else 'fail'} over {verdict.seconds:g} s")
    return "\n".join(text)


def _or(value: float | int | None) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
