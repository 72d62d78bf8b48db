"""TFLite artifacts through ai-edge-litert, or its ancestor tflite-runtime where that was chosen."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input
from edge_agent.errors import first_line

# An extra, so whoever has it asked for it; but an upgrade to numpy 2 leaves it lying about, and
# there it dies.
_ANCESTOR = ("tflite_runtime.interpreter", "tflite-runtime")
_RUNS_ANCESTOR = int(np.__version__.partition(".")[0]) < 2
_LIBRARIES = (_ANCESTOR, ("ai_edge_litert.interpreter", "ai-edge-litert"))


class TfliteRuntime:
    def __init__(
        self,
        path: Path,
        input_name: str,
        output_name: str,
        threads: int,
        library: str | None = None,
    ) -> None:
        """`library` (a distribution's name) restricts the choice to one of the two.

        Raises RuntimeError where none of them is installed, or the one that is does not take the
        file: two of them in one process can crash it (docs/decisions/0004), so there is no second
        opinion.
        """
        make, distribution = _first_of(library)
        try:
            interpreter = make(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except Exception as error:  # each library raises its own; all mean "not this file"
            raise RuntimeError(f"{distribution}: {first_line(error)}") from None
        self._interpreter = interpreter
        self.name = f"{distribution} {version(distribution)}"
        # By signature name: the order of outputs can differ from Keras'.
        self._run = interpreter.get_signature_runner("serving_default")
        self._input, self._output = input_name, output_name

    def run(self, batch: Input) -> NDArray[np.float32]:
        return np.asarray(self._run(**{self._input: batch})[self._output], dtype=np.float32)


def _first_of(library: str | None) -> tuple[Any, str]:
    """The interpreter of the first library that is here, and its distribution."""
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
