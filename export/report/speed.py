"""Time of each artifact on this machine: `speed.json`. It differs from run to run."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from edge_agent.files import encode_json
from export.float_comparison import ComparisonRow
from workshop.machine import cpu_name


class FormTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Time of one network input (a tile where there are tiles), without preprocessing."""

    stage: str
    artifact: str
    p50_ms: float
    p95_ms: float
    inputs: int


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `speed.json`: the CPU, its threads and the times of all artifacts."""

    cpu: str
    threads: int
    timings: tuple[FormTiming, ...]


def of(rows: Sequence[ComparisonRow]) -> Speed:
    """Return the times of the comparison.

    For each input all artifacts run in turn, so that all meet the same load of the machine.
    """
    return Speed(
        cpu=cpu_name(),
        threads=len(os.sched_getaffinity(0)),
        timings=tuple(
            FormTiming(
                stage=row.stage,
                artifact=row.label,
                p50_ms=round(row.run_ms, 3),
                p95_ms=round(row.p95_ms, 3),
                inputs=row.samples,
            )
            for row in rows
        ),
    )


def encode(speed: Speed) -> bytes:
    """Return the bytes of `speed.json`."""
    return encode_json(speed)
