"""Common parts of the converters: batches of samples, names of the float head."""

from __future__ import annotations

from collections.abc import Iterable

from edge_agent.bundle.manifest import Input

Batches = Iterable[Input]
FLOAT_HEAD = ("FULLY_CONNECTED",)
"""TFLite's name of a gate's dense layers."""
