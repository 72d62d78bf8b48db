"""Run of one TFLite file on tflite-runtime: no TensorFlow there, so import no export code.

Usage:

    python -m export.conversion.run_tflite FILE INPUTS.npy OUTPUTS.npy INPUT_NAME OUTPUT_NAME
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edge_agent.errors import one_line
from edge_agent.inspection.runtime.tflite import TfliteRuntime


def main(argv: list[str]) -> int:
    """Run the file on INPUTS (n, h, w, c), write OUTPUTS, float32 (n, ...), and return 0.

    On failure print the reason as one line on stdout and return 1.
    """
    file, inputs, outputs, input_name, output_name = argv
    try:
        runtime = TfliteRuntime(Path(file), input_name, output_name, 1, "tflite-runtime")
        got = [runtime.run(one[None])[0] for one in np.load(inputs)]
    except Exception as error:  # the library raises many types; stdout reports each
        print(one_line(error))
        return 1
    np.save(outputs, np.stack(got))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
