"""Runs one TFLite file on tflite-runtime, in a process that has nothing else loaded.

    python -m export.conversion.run_tflite FILE INPUTS.npy OUTPUTS.npy INPUT_NAME OUTPUT_NAME

INPUTS are (n, h, w, c), as the network takes them. It ends in OUTPUTS, float32 (n, ...), and exit
code 0, or in exit code 1 and one line on stdout that says why not. Its environment is that of
`export.conversion.minimum_runtime.interpreter`, which has no TensorFlow: nothing of the export may
be imported here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edge_agent.errors import one_line
from edge_agent.inspection.runtime.tflite import TfliteRuntime


def main(argv: list[str]) -> int:
    file, inputs, outputs, input_name, output_name = argv
    try:
        runtime = TfliteRuntime(Path(file), input_name, output_name, 1, "tflite-runtime")
        got = [runtime.run(one[None])[0] for one in np.load(inputs)]
    except Exception as error:  # the library raises what it likes; the line is the answer
        print(one_line(error))
        return 1
    np.save(outputs, np.stack(got))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
