"""Manifest of a bundle: `bundle.json`, which names the bundle's files with size and sha256.

`load` checks everything that needs no model run; `edge_agent.inspection.runtime.choose` then runs
the artifacts against the golden outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.bundle.golden import Golden

MAX_TILES = 1024
"""Limit per frame; more would mean tiles of a few pixels by mistake, and minutes per frame."""
Input = NDArray[np.float32] | NDArray[np.uint8]
"""Input of a network: float32, or uint8 if the network does the scaling itself."""
# An input of 8192x8192x3 takes 800 MB; a larger one is a mistake, and would end the process.
_Side = Annotated[int, msgspec.Meta(ge=1, le=8192)]


class Tiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tiling of a frame into pieces of height x width that overlap by at least `overlap_px`.

    All values are in pixels of the camera's frame. Raises ValueError if the overlap is not less
    than each side.
    """

    height_px: int
    width_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        if min(self.height_px, self.width_px) < 1 or self.overlap_px < 0:
            raise ValueError("tiles: height_px and width_px are at least 1, overlap_px at least 0")
        if self.overlap_px >= min(self.height_px, self.width_px):
            raise ValueError(
                f"tiles: overlap_px {self.overlap_px}: give less than height_px and width_px"
            )


# tiles=None is left out of the JSON, so that a bundle without tiles keeps its bytes. No other field
# is: omit_defaults leaves out plain defaults only, not those from a default_factory.
class InputSpec(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Input of a stage: the frame, or each of its tiles, resized and then scaled.

    `height` and `width` are in px. `unit` divides by 255. `network` leaves the scaling to the
    network: its input is uint8, as the camera delivers it. `standardise` subtracts the input's own
    mean and divides by its own standard deviation (at least one grey level, so that a flat image
    stays finite).

    With tiles, each tile is an input: its output does not depend on the rest of the strip, and
    uneven lighting across the strip is compensated. The cost: noise of a defect-free tile is
    amplified to the contrast of a defect (as in training, so the network knows it), and a defect
    that fills a tile evenly loses its level.
    """

    height: _Side
    width: _Side
    channels: Literal[1, 3]
    scaling: Literal["unit", "standardise", "network"]
    interpolation: Literal["area", "linear"] = msgspec.field(default_factory=lambda: "area")
    tiles: Tiles | None = None


GATE_INPUT = InputSpec(height=256, width=256, channels=3, scaling="unit")
"""Input of the seed's gate: 256x256 RGB / 255."""
SEGMENTER_INPUT = InputSpec(height=256, width=256, channels=1, scaling="standardise")
"""Input of the seed's segmenter: 256x256 grey, standardised per image."""

MANIFEST = "bundle.json"
SCHEMA_VERSION = 1
MAX_VERSION = 2**31 - 1
MAX_MANIFEST_BYTES = 1 << 20
_MAX_FILE_BYTES = 1 << 30

Precision = Literal["float32", "float16", "int8", "dynamic"]
Cpu = Literal["any", "x86_64", "aarch64"]
Format = Literal["onnx", "tflite"]
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
BundleName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Bytes = Annotated[int, msgspec.Meta(ge=1, le=_MAX_FILE_BYTES)]
_Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class _ManifestPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the manifest's parts: frozen, and an unknown key is an error."""


class BundleFile(_ManifestPart, frozen=True, kw_only=True):
    """File of the bundle: plain name, sha256 and size."""

    name: _FileName
    sha256: Sha256
    size_bytes: _Bytes


class OldestRuntime(_ManifestPart, frozen=True, kw_only=True):
    """Result of the export's check with the oldest supported runtime, for people only.

    `refusal` is the reason why that runtime cannot run the artifact, or "". `tried` is False if the
    artifact was only compared with a table of that runtime's operators. The agent checks for
    itself.
    """

    name: str
    refusal: str
    tried: bool


# omit_defaults leaves out the fields that an export without acceptance criteria does not set, so
# that such a bundle keeps its bytes; a default from a default_factory is always written.
class Artifact(_ManifestPart, frozen=True, kw_only=True, omit_defaults=True):
    """Artifact of a stage: one network in one format and precision.

    `threshold_logit` (gate only): a frame is suspect at or above it. It belongs to the artifact,
    not to the stage, because quantisation shifts the scores. `golden_tolerance` is the largest
    permitted difference from the golden outputs: of the logit for the gate, of the mean probability
    (0..1) for the segmenter. `op_versions` holds the version of each TFLite operator, or of each
    ONNX operator set and `ir_version`; older bundles have none. For people only: `kept_float` names
    the layers of an int8 network that are not int8, `note` gives the reason for the artifact's
    format.
    """

    file: BundleFile
    format: Format
    precision: Precision
    cpu_architecture: Cpu
    input_name: str
    output_name: str
    golden_tolerance: float
    threshold_logit: float | None = msgspec.field(default_factory=lambda: None)
    op_versions: dict[str, int] = {}
    oldest_runtime: OldestRuntime | None = None
    kept_float: tuple[str, ...] = ()
    note: str = ""

    @property
    def label(self) -> str:
        """Return the artifact's label, unique in its stage.

        For example, "onnx-int8" is for x86-64 or any CPU, "onnx-int8-aarch64" for that CPU.
        """
        name = f"{self.format}-{self.precision}"
        return f"{name}-aarch64" if self.cpu_architecture == "aarch64" else name


class Stage(_ManifestPart, frozen=True, kw_only=True):
    """Stage of the inspection: its input and its artifacts."""

    input: InputSpec
    artifacts: Annotated[tuple[Artifact, ...], msgspec.Meta(min_length=1, max_length=32)]


class RegionRule(_ManifestPart, frozen=True, kw_only=True):
    """Rule for a defect in the probability maps, in pixels of the camera's frame."""

    min_probability: _Probability = 0.5
    min_area_px: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 150


class Manifest(_ManifestPart, frozen=True, kw_only=True):
    """Content of `bundle.json`; the agent does not use `provenance` and `tools`."""

    schema_version: Literal[1]
    name: BundleName
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
    class_names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    gate: Stage
    segmenter: Stage
    regions: RegionRule
    golden: BundleFile
    tools: dict[str, str]
    provenance: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Bundle that was read and verified."""

    folder: Path
    manifest: Manifest
    golden: Golden
    sha256: str
    """Hash of `bundle.json`, which holds the hashes of all other files."""
    signed_by: str = ""
    """Id of the trusted key that signed it; empty if it is unsigned or was not checked."""

    def path(self, artifact: Artifact) -> Path:
        """Return the path of an artifact's file."""
        return self.folder / artifact.file.name
