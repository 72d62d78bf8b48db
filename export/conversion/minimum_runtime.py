"""Each artifact against the oldest runtime a box may have: tried there, or compared with a table.

For TFLite that runtime is another package than the one the export runs on; it is tried in a
process of its own wherever it is installed. For ONNX it is an older version of the same package.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Format, Input, OldestRuntime
from edge_agent.inspection.runtime.self_test import excess, worst_difference
from export.conversion import op_versions
from workshop.keras_models.freeze import INPUT, OUTPUT

_TRIAL_S = 1800.0
"""It is several times slower than its successor, and the machine may be busy."""


def check(
    kind: Format,
    path: Path,
    inputs: Input,
    wanted: NDArray[np.float32],
    tolerance: float,
) -> tuple[dict[str, int], OldestRuntime]:
    """Operator versions of the file at `path`, and whether the oldest runtime runs it.

    `inputs` are the golden ones, (n, h, w, c), `wanted` their outputs, (n, ...): other numbers
    than these are a refusal too.
    """
    name = op_versions.OLDEST[kind]
    versions = op_versions.read(kind, path.read_bytes())
    lacks = op_versions.missing(kind, versions)
    if not _installed(name):
        return versions, OldestRuntime(name=name, tried=False, refusal=lacks)
    if kind == "onnx":  # the installed one is it, and has run the artifact
        return versions, OldestRuntime(name=name, tried=True, refusal="")
    got = _tried(path, inputs)
    if isinstance(got, str):
        refusal = lacks or got
    else:
        refusal = excess(worst_difference(got, wanted), tolerance)
    return versions, OldestRuntime(name=name, tried=True, refusal=refusal)


def _installed(name: str) -> bool:
    """Whether this environment has the runtime `name`, in that version."""
    package, _, wanted = name.partition(" ")
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return found == wanted or found.startswith(f"{wanted}.")


def _tried(path: Path, inputs: Input) -> NDArray[np.float32] | str:
    """The outputs of tflite-runtime, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        given, gave = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        np.save(given, inputs)
        try:
            done = subprocess.run(  # noqa: S603 - our own module, on our own files
                [
                    sys.executable,
                    "-m",
                    "export.conversion.run_tflite",
                    path,
                    given,
                    gave,
                    INPUT,
                    OUTPUT,
                ],
                cwd=Path(__file__).resolve().parents[2],
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
                capture_output=True,
                text=True,
                check=False,
                timeout=_TRIAL_S,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_TRIAL_S:.0f} s"
        if done.returncode == 0:
            outputs: NDArray[np.float32] = np.load(gave)
            return outputs
        said = done.stdout.strip().splitlines()
        # Without a word it was killed: a native library that crashed.
        return said[-1] if said else f"its process ended with {done.returncode}"
