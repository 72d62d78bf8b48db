"""The contract between workshop and line: a folder with `bundle.json` and the files it names, or
the same as one file (`parcel`).

`load` checks everything that can be checked without running a model: on the line first the
signature over the manifest's bytes, then its form, that every file is a plain name and a plain
file inside the folder, its size and its sha256. Only then is anything opened. Running the
artifacts against the golden outputs is `edge_agent.inspection.runtime.choose`.
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
"""Of one frame. More would be a tile of a few pixels by mistake, and minutes for a frame."""
Input = NDArray[np.float32] | NDArray[np.uint8]
"""Of a network: float32, or uint8 where the network scales by itself."""
# An input of 8192x8192x3 takes 800 MB; a number beyond is a mistake, and would end the process.
_Side = Annotated[int, msgspec.Meta(ge=1, le=8192)]


class Tiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A frame cut into pieces of height x width that share at least `overlap_px` with the next.

    All in pixels of the camera's frame. ValueError where the overlap is not less than a side.
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


# tiles=None is left out of the JSON, so that a bundle without tiles keeps its bytes. Only that
# one: omit_defaults knows plain defaults, and writes a field whose default comes from a function.
class InputSpec(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """How a stage wants its input: the frame, or each of its tiles, resized to height x width
    (px), then scaled.

    `unit` divides by 255. `network` leaves that to the network: its input is uint8, as the camera
    gives it. `standardise` subtracts the input's own mean and divides by its own
    standard deviation (at least one grey level, so that a flat image stays finite). An input is a
    tile where there are tiles: what a network says of a tile then does not hang on what lies
    elsewhere on the strip, and light that falls off across it is evened out. The price: noise of
    a bare tile is blown up to the contrast of a defect (as in training, so the network knows it),
    and a defect that fills a tile evenly loses its level.
    """

    height: _Side
    width: _Side
    channels: Literal[1, 3]
    scaling: Literal["unit", "standardise", "network"]
    interpolation: Literal["area", "linear"] = msgspec.field(default_factory=lambda: "area")
    tiles: Tiles | None = None


GATE_INPUT = InputSpec(height=256, width=256, channels=3, scaling="unit")
"""The seed's gate: 256x256 RGB / 255."""
SEGMENTER_INPUT = InputSpec(height=256, width=256, channels=1, scaling="standardise")
"""The seed's segmenter: 256x256 grey, standardised per image."""

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
    """A file of the bundle, by plain name."""

    name: _FileName
    sha256: Sha256
    size_bytes: _Bytes


class OldestRuntime(_ManifestPart, frozen=True, kw_only=True):
    """What the export found out about the oldest runtime a box may have, for people: the agent
    tries for itself. `refusal`: why it cannot run the artifact, or ""; `tried`: it was run there,
    not only compared with a table of the operators it has."""

    name: str
    refusal: str
    tried: bool


# omit_defaults leaves out what an export without a guard does not say, so that such a bundle
# keeps its bytes; a default that comes from a function is written all the same.
class Artifact(_ManifestPart, frozen=True, kw_only=True, omit_defaults=True):
    """One network in one form.

    `threshold_logit` (gate only): a frame is suspect at or above it. It belongs to the artifact,
    not to the stage, because quantisation moves the scores. `golden_tolerance` is the largest
    difference from the golden outputs that still counts as the same network: of the logit for
    the gate, of the mean probability (0..1) for the segmenter. `kept_float` names the layers of an
    int8 network that are not int8, `note` says why the network is in this form; for people.
    `op_versions`: of each TFLite operator, or of each ONNX operator set and `ir_version`; bundles
    from before have none.
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
        """Unique in its stage: "onnx-int8" is x86's, "onnx-int8-aarch64" that CPU's."""
        name = f"{self.format}-{self.precision}"
        return f"{name}-aarch64" if self.cpu_architecture == "aarch64" else name


class Stage(_ManifestPart, frozen=True, kw_only=True):
    input: InputSpec
    artifacts: Annotated[tuple[Artifact, ...], msgspec.Meta(min_length=1, max_length=32)]


class RegionRule(_ManifestPart, frozen=True, kw_only=True):
    """What counts as a defect in the probability maps, in pixels of the camera's frame."""

    min_probability: _Probability = 0.5
    min_area_px: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 150


class Manifest(_ManifestPart, frozen=True, kw_only=True):
    """`bundle.json`. `provenance` and `tools` are for people; the agent obeys the rest."""

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
    folder: Path
    manifest: Manifest
    golden: Golden
    sha256: str
    """Of `bundle.json`, which holds the hashes of everything else."""
    signed_by: str = ""
    """The id of the trusted key that signed it; empty where nobody asked, or nobody signed."""

    def path(self, artifact: Artifact) -> Path:
        return self.folder / artifact.file.name
