"""Bundle output: artifacts, golden file and manifest in one folder."""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.manifest import (
    MANIFEST,
    Artifact,
    Cpu,
    Format,
    Manifest,
    OldestRuntime,
    Precision,
    RegionRule,
    Stage,
)
from edge_agent.bundle.reader import describe, encode_manifest
from edge_agent.bundle.signature import SIGNATURE
from edge_agent.frame import Image
from edge_agent.inspection.gate import SEED_THRESHOLD_LOGIT
from workshop.errors import WorkshopError
from workshop.keras_models.freeze import INPUT, OUTPUT
from workshop.keras_models.load import FloatNetwork

# Golden tolerances: gate logit, mean probability of the segmenter. Rounding differs between CPUs
# and library versions; a wrong or damaged network differs by far more.
_TOLERANCE = {
    ("gate", "float32"): 0.01,
    ("gate", "float16"): 0.05,
    ("gate", "dynamic"): 0.75,
    ("gate", "int8"): 0.75,
    ("segmenter", "float32"): 0.002,
    ("segmenter", "float16"): 0.004,
    ("segmenter", "dynamic"): 0.01,
    ("segmenter", "int8"): 0.01,
}
BESIDE = ("sets.csv", "export.json", "speed.json", "report.html")
"""Files that an export with labels writes beside the bundle, for people."""

_TOOLS = (
    "linegate",
    "tensorflow-cpu",
    "tensorflow",
    "keras",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "numpy",
    "opencv-python",
)


@dataclass(frozen=True, slots=True, eq=False)
class ExportedArtifact:
    """One converted network and its output for the golden frames, tile by tile.

    `golden` is float32 (tiles of all golden frames, ...); `op_versions` and `oldest_runtime` come
    from `minimum_runtime.check`. `threshold_logit` (gate): None stands for the seed's threshold.
    It, `kept_float` and `note` are as in `bundle.Artifact`.
    """

    format: Format
    precision: Precision
    cpu: Cpu
    data: bytes
    golden: NDArray[np.float32]
    op_versions: dict[str, int]
    oldest_runtime: OldestRuntime
    threshold_logit: float | None = None
    kept_float: tuple[str, ...] = ()
    note: str = ""

    def file_name(self, stage: str) -> str:
        """Return the artifact's file name in the bundle."""
        name = self.precision if self.cpu == "any" else f"{self.precision}-{self.cpu}"
        return f"{stage}-{name}.{self.format}"


def tolerance(stage: str, precision: Precision) -> float:
    """Return the allowed deviation from the golden outputs, see `edge_agent.bundle.Artifact`."""
    return _TOLERANCE[stage, precision]


def write(
    out: Path,
    *,
    name: str,
    version: int,
    class_names: Sequence[str],
    sources: Sequence[FloatNetwork],
    made: Mapping[str, Sequence[ExportedArtifact]],
    golden_images: Sequence[Image],
    regions: RegionRule,
    beside: Mapping[str, bytes] | None = None,
    unnamed: Mapping[str, bytes] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Manifest:
    """Write the bundle and return its manifest; `sources` are gate and segmenter.

    `beside` are files for people in the same folder that do not belong to the bundle; the
    provenance contains their sha256 and the entries of `provenance`. `unnamed` are files for people
    that differ from run to run; the manifest omits them. The manifest is written last: an
    interrupted export has none.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        f"image/{index:02d}": image for index, image in enumerate(golden_images)
    }
    for stage, artifacts in made.items():
        for one in artifacts:
            arrays[f"output/{one.file_name(stage)}"] = (
                one.golden.reshape(-1)
                if stage == "gate"
                else np.round(one.golden * 255).astype(np.uint8)
            )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    manifest = Manifest(
        schema_version=1,
        name=name,
        version=version,
        class_names=tuple(class_names),
        gate=_stage(sources[0], made["gate"]),
        segmenter=_stage(sources[1], made["segmenter"]),
        regions=regions,
        golden=describe("golden.npz", buffer.getvalue()),
        tools={tool: found for tool in _TOOLS if (found := _version(tool))},
        provenance={f"{s.stage}_keras_sha256": s.sha256 for s in sources}
        | {f"{s.stage}_note": s.note for s in sources if s.note}
        | {f"{name}_sha256": describe(name, data).sha256 for name, data in (beside or {}).items()}
        | dict(provenance or {}),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stale in (MANIFEST, SIGNATURE, *BESIDE):
            (out / stale).unlink(missing_ok=True)
        for stage, artifacts in made.items():
            for one in artifacts:
                (out / one.file_name(stage)).write_bytes(one.data)
        for file, data in {**(beside or {}), **(unnamed or {})}.items():
            (out / file).write_bytes(data)
        (out / manifest.golden.name).write_bytes(buffer.getvalue())
        (out / MANIFEST).write_bytes(encode_manifest(manifest))
    except OSError as error:
        raise WorkshopError(f"--out: {out}: {error.strerror}; give a folder to write to") from None
    return manifest


def _stage(source: FloatNetwork, made: Sequence[ExportedArtifact]) -> Stage:
    return Stage(
        input=source.spec,
        artifacts=tuple(
            Artifact(
                file=describe(one.file_name(source.stage), one.data),
                format=one.format,
                precision=one.precision,
                cpu_architecture=one.cpu,
                input_name=INPUT,
                output_name=OUTPUT,
                golden_tolerance=tolerance(source.stage, one.precision),
                threshold_logit=_threshold(one) if source.stage == "gate" else None,
                op_versions=one.op_versions,
                oldest_runtime=one.oldest_runtime,
                kept_float=one.kept_float,
                note=one.note,
            )
            for one in made
        ),
    )


def _threshold(one: ExportedArtifact) -> float:
    return SEED_THRESHOLD_LOGIT if one.threshold_logit is None else one.threshold_logit


def _version(tool: str) -> str | None:
    try:
        return importlib.metadata.version(tool)
    except importlib.metadata.PackageNotFoundError:
        return None
