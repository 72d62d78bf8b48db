"""Check of each artifact against the oldest supported runtime: by running it, or by a table.

For TFLite that is another package, which needs numpy 1: it runs in a separate environment, if there
is one. For ONNX it is an older version of the same package.
"""

from __future__ import annotations

import functools
import importlib.metadata
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
from workshop.errors import WorkshopError
from workshop.keras_models.freeze import INPUT, OUTPUT

INTERPRETER = "LINEGATE_TFLITE_RUNTIME_PYTHON"
"""Environment variable: the Python of an environment with linegate[tflite-runtime].

Without it, BESIDE is searched for next to the active environment.
"""

BESIDE = ".venv-tflite-runtime"

_TRIAL_S = 1800.0
"""Time limit: it is several times slower than its successor, and the machine may be busy."""


def check(
    kind: Format,
    path: Path,
    inputs: Input,
    wanted: NDArray[np.float32],
    tolerance: float,
) -> tuple[dict[str, int], OldestRuntime]:
    """Return the operator versions of the file at `path` and the result of the oldest runtime.

    `inputs` are the golden inputs, (n, h, w, c), `wanted` their outputs, (n, ...): a difference
    above `tolerance` counts as a refusal too.
    """
    name = op_versions.OLDEST[kind]
    versions = op_versions.read(kind, path.read_bytes())
    lacks = op_versions.missing(kind, versions)
    if kind == "onnx":
        if not _is(name, importlib.metadata.version("onnxruntime")):
            return versions, OldestRuntime(name=name, tried=False, refusal=lacks)
        # The installed runtime is the oldest one and has run the artifact already.
        return versions, OldestRuntime(name=name, tried=True, refusal="")
    python = interpreter()
    if python is None:
        return versions, OldestRuntime(name=name, tried=False, refusal=lacks)
    got = _tried(python, path, inputs)
    if isinstance(got, str):
        refusal = lacks or got
    else:
        refusal = excess(worst_difference(got, wanted), tolerance)
    return versions, OldestRuntime(name=name, tried=True, refusal=refusal)


def _is(name: str, found: str) -> bool:
    """Return True if version `found` is that of the runtime `name`."""
    wanted = name.partition(" ")[2]
    return found == wanted or found.startswith(f"{wanted}.")


@functools.cache
def interpreter() -> Path | None:
    """Return the Python with the oldest TFLite runtime, or None.

    Raises WorkshopError if INTERPRETER names a Python without it: the user relies on the check
    then.
    """
    said = os.environ.get(INTERPRETER)
    # Not resolved: Python finds its environment through the link.
    python = Path(said or Path(sys.prefix).parent / BESIDE / "bin" / "python").absolute()
    program = "import export.conversion.run_tflite; from importlib.metadata import version as v"
    program += "; print(v('tflite-runtime'))"
    try:
        done = subprocess.run(  # noqa: S603
            [python, "-c", program], cwd="/", capture_output=True, text=True, check=False
        )
        found, why = done.stdout.strip(), done.stderr.strip().splitlines()[-1:]
    except OSError as error:
        found, why = "", [str(error)]
    name = op_versions.OLDEST["tflite"]
    if _is(name, found):
        return python
    if said:
        raise WorkshopError(
            f"{INTERPRETER}: {python} has no linegate[tflite-runtime]: {' '.join(why) or found}"
        )
    return None


def _tried(python: Path, path: Path, inputs: Input) -> NDArray[np.float32] | str:
    """Return the outputs of tflite-runtime, or the reason why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        given, gave = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        np.save(given, inputs)
        try:
            done = subprocess.run(  # noqa: S603 - our own module, on our own files
                [
                    python,
                    "-m",
                    "export.conversion.run_tflite",
                    path.resolve(),
                    given,
                    gave,
                    INPUT,
                    OUTPUT,
                ],
                # Not the current folder: this environment's packages would be imported from there.
                cwd=folder,
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
        # No output means that it was killed: a native library crashed.
        return said[-1] if said else f"its process ended with {done.returncode}"
