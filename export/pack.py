"""A bundle out: artifacts, golden file and manifest in one folder."""

from __future__ import annotations

import importlib.metadata
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle import (
    MANIFEST,
    Artifact,
    Format,
    Manifest,
    Precision,
    RegionRule,
    Stage,
    describe,
    encode_manifest,
)
from edge_agent.frame import Image
from edge_agent.gate import SEED_THRESHOLD_LOGIT
from export.convert import INPUT, OUTPUT
from export.errors import ExportError
from export.source import Source

# Golden tolerances: of the gate's logit, of the segmenter's mean probability. Rounding differs
# between CPUs and library versions; a wrong or damaged network is off by far more.
_TOLERANCE = {
    ("gate", "float32"): 0.01,
    ("gate", "int8"): 0.75,
    ("segmenter", "float32"): 0.002,
    ("segmenter", "int8"): 0.01,
}
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
class Made:
    """One converted network and what it answered to the golden frames."""

    format: Format
    precision: Precision
    data: bytes
    golden: NDArray[np.float32]

    def file_name(self, stage: str) -> str:
        return f"{stage}-{self.precision}.{self.format}"


def write(
    out: Path,
    *,
    name: str,
    version: int,
    class_names: Sequence[str],
    sources: Sequence[Source],
    made: Mapping[str, Sequence[Made]],
    golden_images: Sequence[Image],
    regions: RegionRule,
) -> Manifest:
    """Write the bundle; `sources` are gate and segmenter.

    The manifest comes last: an export that broke off has none.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        f"image/{index:02d}": image for index, image in enumerate(golden_images)
    }
    for stage, artifacts in made.items():
        for one in artifacts:
            golden = one.golden.reshape(len(golden_images), -1) if stage == "gate" else one.golden
            arrays[f"output/{one.file_name(stage)}"] = (
                golden[:, 0] if stage == "gate" else np.round(golden * 255).astype(np.uint8)
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
        | {f"{s.stage}_note": s.note for s in sources if s.note},
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MANIFEST).unlink(missing_ok=True)
        for stage, artifacts in made.items():
            for one in artifacts:
                (out / one.file_name(stage)).write_bytes(one.data)
        (out / manifest.golden.name).write_bytes(buffer.getvalue())
        (out / MANIFEST).write_bytes(encode_manifest(manifest))
    except OSError as error:
        raise ExportError(f"--out: {out}: {error.strerror}; give a folder to write to") from None
    return manifest


def _stage(source: Source, made: Sequence[Made]) -> Stage:
    return Stage(
        input=source.spec,
        artifacts=tuple(
            Artifact(
                file=describe(one.file_name(source.stage), one.data),
                format=one.format,
                precision=one.precision,
                # ONNX int8 is made for the vector unit of the machine that made it.
                cpu_architecture=(
                    "any" if (one.format, one.precision) != ("onnx", "int8") else _machine()
                ),
                input_name=INPUT,
                output_name=OUTPUT,
                golden_tolerance=_TOLERANCE[source.stage, one.precision],
                threshold_logit=SEED_THRESHOLD_LOGIT if source.stage == "gate" else None,
            )
            for one in made
        ),
    )


def _machine() -> Literal["x86_64", "aarch64"]:
    machine = platform.machine()
    if machine == "x86_64":
        return "x86_64"
    if machine in ("aarch64", "arm64"):
        return "aarch64"
    raise ExportError(f"this machine is {machine}; int8 is made for x86_64 or aarch64")


def _version(tool: str) -> str | None:
    try:
        return importlib.metadata.version(tool)
    except importlib.metadata.PackageNotFoundError:
        return None
