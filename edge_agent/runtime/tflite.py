"""TFLite artifacts through ai-edge-litert, or its ancestor tflite-runtime where only that is."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.preprocess import Input

_LIBRARIES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
)


class TfliteRuntime:
    def __init__(
        self,
        path: Path,
        input_name: str,
        output_name: str,
        threads: int,
        library: str | None = None,
    ) -> None:
        """`library` (a distribution's name) restricts the choice to one of the two."""
        problems = []
        for module, distribution in _LIBRARIES:
            if library not in (None, distribution):
                continue
            # Importing proves nothing: tflite-runtime imports with numpy 2 and then fails to
            # construct, and an old runtime refuses new op versions only here.
            try:
                make: Any = importlib.import_module(module).Interpreter
                interpreter = make(model_path=str(path), num_threads=threads)
                interpreter.allocate_tensors()
            except Exception as error:  # every library raises its own; all mean "not this one"
                problems.append(f"{distribution}: {str(error).splitlines()[0]}")
                continue
            self._interpreter = interpreter
            self.name = f"{distribution} {version(distribution)}"
            break
        else:
            raise RuntimeError("; ".join(problems) or f"{library}: unknown library")
        # By signature name: the order of outputs can differ from Keras'.
        self._run = interpreter.get_signature_runner("serving_default")
        self._input, self._output = input_name, output_name

    def run(self, batch: Input) -> NDArray[np.float32]:
        return np.asarray(self._run(**{self._input: batch})[self._output], dtype=np.float32)
