"""ONNX artifacts through onnxruntime, on the execution provider that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input
from edge_agent.inspection.runtime.base import CPU


class OnnxRuntime:
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
        """Raises RuntimeError when the network would run on the CPU instead of `provider`.

        `exact` computes int8 in float32 between its roundings: slow, and the same everywhere, so
        that what is made for another CPU can be judged on this one.
        """
        # onnxruntime only warns about a provider it does not have, and takes the CPU.
        compiled_in = onnxruntime.get_available_providers()
        if provider not in compiled_in:
            raise RuntimeError(f"not in this onnxruntime, which has {', '.join(compiled_in)}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # The cores are shared with the camera and the publisher: a spinning pool starves them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if exact:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if provider != CPU:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # Without enable_fallback=0 a provider that fails at run time is replaced by the CPU.
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
        return np.asarray(
            self._session.run(self._outputs, {self._input: batch})[0], dtype=np.float32
        )


def _refuse_fallback(session: onnxruntime.InferenceSession, provider: str) -> None:
    """A provider whose driver is missing leaves the session; one that takes no node stays in it.

    One that takes some of the nodes is not refused: outputs and time judge it.
    """
    running = session.get_providers()
    if provider not in running:
        raise RuntimeError(f"fell back to {', '.join(running)}; is its driver installed?")
    # Below onnxruntime 1.24 there is no telling where the nodes are.
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return
    if all(part.ep_name != provider for part in session.get_provider_graph_assignment_info()):
        raise RuntimeError(f"fell back to {CPU}: it takes no part of this network")
