"""Runtime for TFLite artifacts: ai-edge-litert, or the older tflite-runtime if installed."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input
from edge_agent.errors import first_line

# tflite-runtime is an optional extra, so its presence is deliberate. But an upgrade to numpy 2
# leaves it installed, and there it crashes.
_ANCESTOR = ("tflite_runtime.interpreter", "tflite-runtime")
_RUNS_ANCESTOR = int(np.__version__.partition(".")[0]) < 2
_LIBRARIES = (_ANCESTOR, ("ai_edge_litert.interpreter", "ai-edge-litert"))


class TfliteRuntime:
    """Runtime of a TFLite artifact."""

    def __init__(
        self,
        path: Path,
        input_name: str,
        output_name: str,
        threads: int,
        library: str | None = None,
    ) -> None:
        """Load the network; `library` (a distribution name) restricts the choice to one library.

        Two of the libraries in one process can crash it (docs/decisions/0004), so the second is
        not tried if the first refuses the file.

        Raises:
            RuntimeError: No library is installed, or the installed one refuses the file.
        """
        make, distribution = _first_of(library)
        try:
            interpreter = make(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except Exception as error:  # each library raises its own types; all mean "cannot load"
            raise RuntimeError(f"{distribution}: {first_line(error)}") from None
        self._interpreter = interpreter
        self.name = f"{distribution} {version(distribution)}"
        # By signature name: the order of outputs can differ from the Keras model's.
        self._run = interpreter.get_signature_runner("serving_default")
        self._input, self._output = input_name, output_name

    def run(self, batch: Input) -> NDArray[np.float32]:
        """Run one input (1, height, width, channels); return the output as float32."""
        return np.asarray(self._run(**{self._input: batch})[self._output], dtype=np.float32)


def _first_of(library: str | None) -> tuple[Any, str]:
    """Return the interpreter class of the first usable library, and its distribution name."""
    problems = []
    for module, distribution in _LIBRARIES:
        if library not in (None, distribution):
            continue
        if distribution == _ANCESTOR[1] and not _RUNS_ANCESTOR:
            problems.append(f"{distribution}: needs numpy 1, this is {np.__version__}")
            continue
        try:
            return importlib.import_module(module).Interpreter, distribution
        except ImportError as error:
            problems.append(f"{distribution}: {first_line(error)}")
    raise RuntimeError("; ".join(problems) or f"{library}: unknown library")
