"""What a run needs to go on after any epoch, in one file that is there whole or not at all."""

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
    """`epochs` done, of which `best_epoch` (from 1; 0 for none) had the lowest loss."""

    run_sha256: str
    epochs: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    history: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Progress with the values of the network and of its optimizer, in their own order."""

    progress: Progress
    network: tuple[NDArray[Any], ...]
    optimizer: tuple[NDArray[Any], ...]


def values(variables: Sequence[keras.Variable]) -> tuple[NDArray[Any], ...]:
    return tuple(np.asarray(keras.ops.convert_to_numpy(v)) for v in variables)


def assign(variables: Sequence[keras.Variable], given: Sequence[NDArray[Any]]) -> None:
    for variable, value in zip(variables, given, strict=True):
        variable.assign(value)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file: a process killed in between leaves the old one."""
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
    """Raises WorkshopError where the file is damaged or missing."""
    try:
        # numpy leaves a damaged file open, a buffer not.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            progress = msgspec.json.decode(arrays["progress"].tobytes(), type=Progress)
            network, optimizer = (
                tuple(arrays[k] for k in sorted(arrays.files) if k.startswith(f"{part}/"))
                for part in ("network", "optimizer")
            )
    except FileNotFoundError:
        raise WorkshopError(f"--resume: {path}: no such file; nothing to go on with") from None
    except Exception as error:  # zipfile, zlib, numpy and msgspec each raise their own
        raise WorkshopError(f"{path}: {error}; delete the folder and start anew") from None
    return Checkpoint(progress, network, optimizer)
