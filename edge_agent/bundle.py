"""The contract between workshop and line: a folder with `bundle.json` and the files it names.

`load` checks everything that can be checked without running a model: the manifest's form, that
every file is a plain name inside the folder, its size and its sha256. Only then is anything
opened. Running the artifacts against the golden outputs is `edge_agent.runtime.choose`.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import BundleError
from edge_agent.frame import Image
from edge_agent.preprocess import InputSpec

MANIFEST = "bundle.json"
SCHEMA_VERSION = 1
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_FILE_BYTES = 1 << 30

Precision = Literal["float32", "int8"]
Format = Literal["onnx", "tflite"]
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Bytes = Annotated[int, msgspec.Meta(ge=1, le=_MAX_FILE_BYTES)]
_Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the manifest's parts: frozen, and an unknown key is an error."""


class File(_Part, frozen=True, kw_only=True):
    """A file of the bundle, by plain name."""

    name: _FileName
    sha256: _Sha256
    size_bytes: _Bytes


class Artifact(_Part, frozen=True, kw_only=True):
    """One network in one form.

    `threshold_logit` (gate only): a frame is suspect at or above it. It belongs to the artifact,
    not to the stage, because quantisation moves the scores. `golden_tolerance` is the largest
    difference from the golden outputs that still counts as the same network: of the logit for
    the gate, of the mean probability (0..1) for the segmenter.
    """

    file: File
    format: Format
    precision: Precision
    cpu_architecture: Literal["any", "x86_64", "aarch64"]
    input_name: str
    output_name: str
    golden_tolerance: float
    threshold_logit: float | None = None

    @property
    def label(self) -> str:
        return f"{self.format}-{self.precision}"


class Stage(_Part, frozen=True, kw_only=True):
    input: InputSpec
    artifacts: Annotated[tuple[Artifact, ...], msgspec.Meta(min_length=1, max_length=32)]


class RegionRule(_Part, frozen=True, kw_only=True):
    """What counts as a defect in the probability maps, in pixels of the camera's frame."""

    min_probability: _Probability = 0.5
    min_area_px: Annotated[int, msgspec.Meta(ge=1)] = 150


class Manifest(_Part, frozen=True, kw_only=True):
    """`bundle.json`. `provenance` and `tools` are for people; the agent obeys the rest."""

    schema_version: Literal[1]
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    version: Annotated[int, msgspec.Meta(ge=1)]
    class_names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    gate: Stage
    segmenter: Stage
    regions: RegionRule
    golden: File
    tools: dict[str, str]
    provenance: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Frames with the outputs each artifact gave for them when it was made.

    `images`: n frames; `outputs`: per artifact file name, the gate's logits as float32 (n,) or
    the segmenter's probabilities as uint8 (n, h, w, classes), 255 for 1.
    """

    images: tuple[Image, ...]
    outputs: dict[str, NDArray[np.float32] | NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    folder: Path
    manifest: Manifest
    golden: Golden
    sha256: str
    """Of `bundle.json`, which holds the hashes of everything else."""

    def path(self, artifact: Artifact) -> Path:
        return self.folder / artifact.file.name


def load(folder: Path) -> Bundle:
    """Read and check a bundle. Raises BundleError naming the file and the fix."""
    raw = _read(folder / MANIFEST, _MAX_MANIFEST_BYTES)
    manifest = parse_manifest(raw, folder / MANIFEST)
    for stage in (manifest.gate, manifest.segmenter):
        for artifact in stage.artifacts:
            _verified(folder, artifact.file)
    return Bundle(
        folder=folder,
        manifest=manifest,
        golden=_golden(_verified(folder, manifest.golden), folder / manifest.golden.name),
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """`bundle.json`'s bytes as a Manifest; `path` is for the message only."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A key may hold a line break, and msgspec repeats it as it is.
        why = " ".join(str(error).split())
        raise BundleError(f"{path}: {why}; export the bundle again") from None
    for artifact in manifest.gate.artifacts:
        if artifact.threshold_logit is None:
            raise BundleError(
                f"{path}: gate artifact {artifact.file.name} has no threshold_logit; "
                "run edge-calibrate gate"
            )
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as it is written to `bundle.json`: the same manifest, the same bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def describe(name: str, data: bytes) -> File:
    """The manifest's entry for a file with this content."""
    return File(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit_bytes:
            raise BundleError(f"{path}: {size} bytes, more than the limit of {limit_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: {error.strerror or error}; is this folder a whole bundle?"
        ) from None


def _verified(folder: Path, file: File) -> bytes:
    data = _read(folder / file.name, _MAX_FILE_BYTES)
    if describe(file.name, data) != file:
        raise BundleError(
            f"{folder / file.name}: sha256 is not the one in {MANIFEST} "
            f"({len(data)} bytes, {file.size_bytes} expected); copy the bundle again"
        )
    return data


def _golden(data: bytes, path: Path) -> Golden:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            images = {k: arrays[k] for k in sorted(arrays.files) if k.startswith("image/")}
            outputs = {
                k.removeprefix("output/"): arrays[k]
                for k in arrays.files
                if k.startswith("output/")
            }
    except Exception as error:  # zipfile, zlib and numpy each raise their own, and MemoryError
        why = " ".join(str(error).split())
        raise BundleError(f"{path}: not a golden file ({why}); export again") from None
    return Golden(tuple(images.values()), outputs)
