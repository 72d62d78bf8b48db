"""The seed's two networks at any width with random weights, for speed and memory benchmarks.

With the initial batch norm statistics the signal of a deep network, and its int8 ranges, vanish or
explode. The statistics are therefore computed on simulated frames first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import GATE_INPUT, SEGMENTER_INPUT, InputSpec
from edge_agent.config.camera import SimulatedCamera
from edge_agent.errors import EdgeError
from edge_agent.inspection.preprocess import prepare
from edge_agent.simulation.rolled_steel import strip_of
from training.networks import networks

_SEED = 5000
_BATCHES, _BATCH = 12, 8


def write(out: Path, width: float) -> Iterator[str]:
    """Write `gate.keras` and `segmenter.keras` to the folder `out`; yield each path once written.

    The same width gives the same weights. Raises EdgeError if a file cannot be written.
    """
    makers = (
        ("gate", networks.gate, GATE_INPUT),
        ("segmenter", networks.segmenter, SEGMENTER_INPUT),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, make, spec in makers:
            keras.utils.set_random_seed(_SEED)
            model = make(width=width)
            settle(model, _batches(spec))
            model.save(out / f"{name}.keras")
            yield str(out / f"{name}.keras")
    except OSError as error:
        raise EdgeError(f"--out: {out}: {error.strerror}; give a folder to write to") from None


def settle(model: keras.Model, batches: Iterator[NDArray[np.float32]]) -> None:
    """Set the statistics of all batch norms to the mean over the batches."""
    norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    usual = [one.momentum for one in norms]
    for number, batch in enumerate(batches):
        for one in norms:
            one.momentum = number / (number + 1)
        model(batch, training=True)
    for one, momentum in zip(norms, usual, strict=True):
        one.momentum = momentum


def _batches(spec: InputSpec) -> Iterator[NDArray[np.float32]]:
    strip = strip_of(SimulatedCamera(seed=_SEED))
    for number in range(_BATCHES):
        lines = range(number * _BATCH * 256, (number + 1) * _BATCH * 256, 256)
        yield np.concatenate([prepare(strip.render(line, 256), spec) for line in lines])
