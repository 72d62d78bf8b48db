"""Run folder: the settings, data and history of a trained model.

Files: train.json, split.csv, last.npz, best.npz, tensorboard/, run.json, curves.png, STAGE.keras.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.bundle.manifest import InputSpec
from edge_agent.files import encode_json
from training.config import TrainConfig
from training.fit.callbacks import LAST
from training.fit.checkpoint import Progress
from workshop.datasets.base import DataSet
from workshop.errors import WorkshopError
from workshop.splits import Split
from workshop.splits import write as write_split

_TOOLS = ("linegate", "tensorflow-cpu", "tensorflow", "keras", "numpy", "opencv-python")


class RunIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of a run; equal identities give equal weights on the same type of CPU.

    `data_sha256` has one digest for each part, over the names and digests of its images, and one
    for the file of the backbone.
    """

    stage: str
    config: TrainConfig
    data_sha256: dict[str, str]

    @property
    def sha256(self) -> str:
        """Return the digest of the identity, in hex."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a started run, written to `train.json`."""

    identity: RunIdentity
    input: InputSpec
    data: str
    class_names: tuple[str, ...]
    images: dict[str, int]
    versions: dict[str, str]


def claim(out: Path, *, resume: bool) -> None:
    """Check that `out` holds no run, or, with `resume`, a run with a complete epoch.

    Raises WorkshopError otherwise.
    """
    if not resume and (out / LAST).exists():
        raise WorkshopError(f"--out: {out}: holds a run; add --resume, or give another folder")
    if resume and not (out / LAST).exists():
        raise WorkshopError(f"--resume: {out}: no complete epoch; start without --resume")


def begin(
    out: Path, identity: RunIdentity, split: Split, dataset: DataSet, spec: InputSpec
) -> None:
    """Create the run folder with `train.json` and `split.csv`.

    Args:
        out: The folder.
        identity: Identity of the run.
        split: Names of the images of each part.
        dataset: The data set, for its name and classes.
        spec: Input format of the network.

    Raises:
        WorkshopError: The folder cannot be written.
    """
    record = RunRecord(
        identity=identity,
        input=spec,
        data=dataset.name,
        class_names=dataset.class_names,
        images={part: len(getattr(split, part)) for part in ("train", "validation", "test")},
        versions=_versions(),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "train.json").write_bytes(encode_json(record))
        write_split(out / "split.csv", split)
    except OSError as error:
        raise WorkshopError(f"--out: {out}: {error.strerror}; give a writable folder") from None


def difference(out: Path, identity: RunIdentity) -> str:
    """List the settings in which the run in `out` differs from `identity`, for a message."""
    try:
        old = msgspec.json.decode((out / "train.json").read_bytes(), type=RunRecord).identity
    except (OSError, msgspec.DecodeError):
        return "other settings (its train.json cannot be read)"
    then, now = (_flat(json.loads(msgspec.json.encode(one))) for one in (old, identity))
    keys = sorted(k for k in then.keys() | now.keys() if then.get(k) != now.get(k))
    return ", ".join(f"{k} {then.get(k)!r} (now {now.get(k)!r})" for k in keys)


def _flat(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = key if key in ("config", "data_sha256") and not at else f"{at}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, "" if name == "config" else f"{name}.")
        else:
            flat[name] = value
    return flat


def finish(out: Path, progress: Progress, parameters: int, duration_s: float) -> dict[str, Any]:
    """Write `run.json` and `curves.png`.

    Args:
        out: The run folder.
        progress: Progress after the last epoch.
        parameters: Number of parameters of the model.
        duration_s: Run time of this process in seconds.

    Returns:
        The content of `run.json`.
    """
    best = progress.history[progress.best_epoch - 1]
    figures = {
        "parameters": parameters,
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        "validation": {k.removeprefix("val_"): v for k, v in best.items() if k.startswith("val_")},
        # Of this process only: the time before a resume is unknown.
        "duration_s": round(duration_s),
        "versions": _versions(),
        "history": progress.history,
    }
    (out / "run.json").write_bytes(encode_json(figures))
    _plot(out / "curves.png", progress)
    return figures


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for tool in _TOOLS:
        try:
            found[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _plot(path: Path, progress: Progress) -> None:
    """Plot each metric over the epochs, training and validation in one panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [k for k in progress.history[0] if not k.startswith("val_")]
    names = [k for k in names if f"val_{k}" in progress.history[0]]
    figure = Figure(figsize=(4.5 * len(names), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = range(1, len(progress.history) + 1)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axes.plot(epochs, [h[name] for h in progress.history], label="training")
        axes.plot(epochs, [h[f"val_{name}"] for h in progress.history], label="validation")
        axes.axvline(progress.best_epoch, color="0.6", linewidth=1, linestyle=":")
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
