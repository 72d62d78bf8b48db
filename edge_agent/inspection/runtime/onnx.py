"""Runtime for ONNX artifacts: onnxruntime with the configured execution provider."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input
from edge_agent.inspection.runtime.base import CPU


class OnnxRuntime:
    """Runtime of an ONNX artifact in onnxruntime."""

    def __init__(
        self,
        path: Path,
        input_name: str,
        output_name: str,
        threads: int,
        provider: str = CPU,
        *,
        exact: bool = False,
    ) -> None:
        """Load the network.

        `exact` computes int8 in float32 between its roundings: slow, but identical on every CPU,
        so that an artifact made for another CPU can be checked on this one.

        Raises:
            RuntimeError: The network would run on the CPU instead of `provider`.
        """
        # For an unavailable provider onnxruntime only warns and uses the CPU.
        compiled_in = onnxruntime.get_available_providers()
        if provider not in compiled_in:
            raise RuntimeError(f"not in this onnxruntime, which has {', '.join(compiled_in)}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # The camera and the sender share the cores: a spinning thread pool starves them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if exact:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if provider != CPU:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # Without enable_fallback=0 onnxruntime replaces a provider that fails at run time by the
        # CPU.
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=[provider], enable_fallback=0
        )
        if provider != CPU:
            _refuse_fallback(self._session, provider)
        self._input, self._outputs = input_name, [output_name]
        self.name = f"onnxruntime {onnxruntime.__version__}"
        if provider != CPU:
            self.name += f" {provider}"

    def run(self, batch: Input) -> NDArray[np.float32]:
        """Run one input (1, height, width, channels); return the output as float32."""
        return np.asarray(
            self._session.run(self._outputs, {self._input: batch})[0], dtype=np.float32
        )


def _refuse_fallback(session: onnxruntime.InferenceSession, provider: str) -> None:
    """Raise RuntimeError if `provider` executes no part of the network.

    A provider without its driver drops out of the session; a provider that accepts no node stays
    in it. A provider that accepts only some nodes is not refused: outputs and run time decide.
    """
    running = session.get_providers()
    if provider not in running:
        raise RuntimeError(f"fell back to {', '.join(running)}; is its driver installed?")
        # onnxruntime below 1.24 does not report the provider of each node.
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return
    if all(part.ep_name != provider for part in session.get_provider_graph_assignment_info()):
        raise RuntimeError(f"fell back to {CPU}: it takes no part of this network")
