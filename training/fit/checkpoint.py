"""Checkpoints: one file, replaced atomically, from which a run resumes after any epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent import files
from workshop.errors import WorkshopError


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a run, with the metrics of each epoch in `history`.

    `epochs` are complete. `best_epoch` counts from 1 and is 0 before the first epoch; `best_loss`
    is its validation loss. `run_sha256` identifies the run.
    """

    run_sha256: str
    epochs: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    history: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Progress with the values of network and optimizer, in the order of their variables."""

    progress: Progress
    network: tuple[NDArray[Any], ...]
    optimizer: tuple[NDArray[Any], ...]


def values(variables: Sequence[keras.Variable]) -> tuple[NDArray[Any], ...]:
    """Copy the values of `variables` to arrays; return them in the same order."""
    return tuple(np.asarray(keras.ops.convert_to_numpy(v)) for v in variables)


def assign(variables: Sequence[keras.Variable], given: Sequence[NDArray[Any]]) -> None:
    """Assign the arrays `given` to `variables`, in order.

    Raises ValueError if the numbers or the shapes differ.
    """
    for variable, value in zip(variables, given, strict=True):
        variable.assign(value)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path` atomically: an interrupted process leaves the old one."""
    arrays: dict[str, NDArray[Any]] = {
        "progress": np.frombuffer(msgspec.json.encode(checkpoint.progress), np.uint8)
    }
    for part, all_values in (("network", checkpoint.network), ("optimizer", checkpoint.optimizer)):
        arrays |= {f"{part}/{k:05d}": value for k, value in enumerate(all_values)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    with files.replacing(path) as new:
        new.write_bytes(buffer.getbuffer())


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; raise WorkshopError if the file is damaged or missing."""
    try:
        # From a buffer, because numpy leaves a damaged file open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            progress = msgspec.json.decode(arrays["progress"].tobytes(), type=Progress)
            network, optimizer = (
                tuple(arrays[k] for k in sorted(arrays.files) if k.startswith(f"{part}/"))
                for part in ("network", "optimizer")
            )
    except FileNotFoundError:
        raise WorkshopError(f"--resume: {path}: no such file; start without --resume") from None
    except Exception as error:  # zipfile, zlib, numpy and msgspec raise different types
        raise WorkshopError(f"{path}: {error}; delete the folder and start again") from None
    return Checkpoint(progress, network, optimizer)
