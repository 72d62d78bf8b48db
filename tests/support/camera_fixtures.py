"""Simulated cameras on the wire, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from tests.support import fake_cameras


class StartCamera(Protocol):
    """Start a simulated camera; it ends with the test."""

    def __call__(self, **options: int) -> fake_cameras.Camera: ...


@pytest.fixture
def gvcp_port() -> Iterator[None]:
    with fake_cameras.gvcp_port():
        yield


@pytest.fixture
def aravis(gvcp_port: None) -> Iterator[StartCamera]:
    """`aravis(lost_per_thousand=…)`: Aravis' simulated camera, which nobody here wrote."""
    started: list[fake_cameras.Camera] = []

    def start(**options: int) -> fake_cameras.Camera:
        started.append(fake_cameras.aravis(**options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def viva_camera(gvcp_port: None) -> Iterator[StartCamera]:
    """`viva_camera(fps=…)`: viva-genicam's simulated camera, in a process of its own."""
    started: list[fake_cameras.Camera] = []

    def start(**options: int) -> fake_cameras.Camera:
        started.append(fake_cameras.viva(**options))
        return started[-1]

    yield start
    for one in started:
        one.kill()
