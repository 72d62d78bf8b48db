"""Comparison of float Keras and each artifact on the same samples: the effect of quantisation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import Input
from edge_agent.inspection.gate import SEED_THRESHOLD_LOGIT
from edge_agent.inspection.runtime import Runtime


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """Comparison of one artifact with float Keras.

    `difference` is of logits (gate) or probabilities (segmenter). A sample is one input of the
    network: a tile where there are tiles. `agreement`: share of samples with the same decision at p
    = 0.01 (gate), or mean IoU of the masks at 0.5 over samples where either has one (segmenter; nan
    if none has). `refused_there`: why `oldest_runtime`, the oldest one permitted, cannot run it, or
    ""; `tried_there`: True if it was run there, False if only its operators were looked up.
    `run_ms` is the median time of one sample.
    """

    stage: str
    label: str
    size_bytes: int
    run_ms: float
    p95_ms: float
    mean_difference: float
    max_difference: float
    agreement: float
    samples: int
    oldest_runtime: str = ""
    refused_there: str = ""
    tried_there: bool = False


@dataclass(slots=True)
class FormComparison:
    """Collector of one `ComparisonRow`, sample by sample."""

    stage: str
    label: str
    size_bytes: int
    runtime: Runtime
    _times_ms: list[float] = field(default_factory=list)
    _mean: list[float] = field(default_factory=list)
    _max: list[float] = field(default_factory=list)
    _agreement: list[float] = field(default_factory=list)

    def see(self, batch: Input, reference: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one input and return the output in the shape of `reference`, float Keras' output."""
        began = time.perf_counter()
        output = self.runtime.run(batch)
        self._times_ms.append(1000 * (time.perf_counter() - began))
        got = output.reshape(reference.shape)
        difference = np.abs(got - reference)
        self._mean.append(float(difference.mean()))
        self._max.append(float(difference.max()))
        level = SEED_THRESHOLD_LOGIT if self.stage == "gate" else 0.5
        one, other = got >= level, reference >= level
        if self.stage == "gate":
            self._agreement.append(float((one == other).mean()))
        elif either := int((one | other).sum()):
            self._agreement.append(int((one & other).sum()) / either)
        return got

    def row(self) -> ComparisonRow:
        """Return the comparison over all samples so far."""
        return ComparisonRow(
            self.stage,
            self.label,
            self.size_bytes,
            float(np.median(self._times_ms)),
            float(np.percentile(self._times_ms, 95)),
            float(np.mean(self._mean)),
            float(np.max(self._max)),
            float(np.mean(self._agreement)) if self._agreement else float("nan"),
            len(self._times_ms),
        )


def table(rows: Sequence[ComparisonRow]) -> str:
    """Return the rows as a text table."""
    lines = [
        f"{'stage':<10} {'artifact':<15} {'size kB':>8} {'ms':>7} {'mean diff':>10} "
        f"{'max diff':>9} {'agreement':>9}  oldest runtime"
    ]
    lines += [
        f"{r.stage:<10} {r.label:<15} {r.size_bytes / 1000:>8.0f} {r.run_ms:>7.1f} "
        f"{r.mean_difference:>10.5f} {r.max_difference:>9.4f} {r.agreement:>9.4f}  "
        f"{'not ' if r.refused_there else ''}{r.oldest_runtime}"
        f"{'' if r.tried_there else ' (not tried)'}"
        for r in rows
    ]
    samples = " and ".join(f"{n} ({s})" for s, n in {r.stage: r.samples for r in rows}.items())
    return "\n".join(
        [
            *lines,
            f"against float Keras on {samples} inputs; differences of the logit (gate) and of "
            "probabilities (segmenter);",
            "agreement: same decision at p = 0.01 (gate), IoU of masks at 0.5 (segmenter)",
            *(
                f"a box with {r.oldest_runtime} cannot run {r.stage} {r.label}: {r.refused_there}"
                for r in rows
                if r.refused_there
            ),
            *(
                f"{name} was not tried: no environment here has it; only operators were compared"
                for name in sorted({r.oldest_runtime for r in rows if not r.tried_there})
                if name
            ),
        ]
    )
