"""The contract between workshop and line: a folder with `bundle.json` and the files it names, or
the same as one file (`parcel`).

`load` checks everything that can be checked without running a model: on the line first the
signature over the manifest's bytes, then its form, that every file is a plain name and a plain
file inside the folder, its size and its sha256. Only then is anything opened. Running the
artifacts against the golden outputs is `edge_agent.runtime.choose`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_agent.errors import BundleError
from edge_agent.golden import Golden, parse_golden
from edge_agent.preprocess import InputSpec
from edge_agent.signature import MAX_BYTES, SIGNATURE, Trust, verify

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


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the manifest's parts: frozen, and an unknown key is an error."""


class File(_Part, frozen=True, kw_only=True):
    """A file of the bundle, by plain name."""

    name: _FileName
    sha256: Sha256
    size_bytes: _Bytes


class OldestRuntime(_Part, frozen=True, kw_only=True):
    """What the export found out about the oldest runtime a box may have, for people: the agent
    tries for itself. `refusal`: why it cannot run the artifact, or ""; `tried`: it was run there,
    not only compared with a table of the operators it has."""

    name: str
    refusal: str
    tried: bool


# omit_defaults leaves out what an export without a guard does not say, so that such a bundle
# keeps its bytes; a default that comes from a function is written all the same.
class Artifact(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """One network in one form.

    `threshold_logit` (gate only): a frame is suspect at or above it. It belongs to the artifact,
    not to the stage, because quantisation moves the scores. `golden_tolerance` is the largest
    difference from the golden outputs that still counts as the same network: of the logit for
    the gate, of the mean probability (0..1) for the segmenter. `kept_float` names the layers of an
    int8 network that are not int8, `note` says why the network is in this form; for people.
    `op_versions`: of each TFLite operator, or of each ONNX operator set and `ir_version`; bundles
    from before have none.
    """

    file: File
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


class Stage(_Part, frozen=True, kw_only=True):
    input: InputSpec
    artifacts: Annotated[tuple[Artifact, ...], msgspec.Meta(min_length=1, max_length=32)]


class RegionRule(_Part, frozen=True, kw_only=True):
    """What counts as a defect in the probability maps, in pixels of the camera's frame."""

    min_probability: _Probability = 0.5
    min_area_px: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 150


class Manifest(_Part, frozen=True, kw_only=True):
    """`bundle.json`. `provenance` and `tools` are for people; the agent obeys the rest."""

    schema_version: Literal[1]
    name: BundleName
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
    class_names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    gate: Stage
    segmenter: Stage
    regions: RegionRule
    golden: File
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


def load(folder: Path, trust: Trust | None = None) -> Bundle:
    """Read and check a bundle. Raises BundleError naming the file and the fix.

    Without `trust`, as in the workshop where bundles are made, nobody asks for a signature.
    """
    raw, manifest, signed_by = read_manifest(folder, trust)
    for stage in (manifest.gate, manifest.segmenter):
        for artifact in stage.artifacts:
            _verified(folder, artifact.file)
    return Bundle(
        folder=folder,
        manifest=manifest,
        golden=parse_golden(_verified(folder, manifest.golden), folder / manifest.golden.name),
        sha256=hashlib.sha256(raw).hexdigest(),
        signed_by=signed_by,
    )


def read_manifest(folder: Path, trust: Trust | None = None) -> tuple[bytes, Manifest, str]:
    """The first part of `load`: bytes of `bundle.json`, what they say, and whose they are."""
    raw = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
    signed_by = _signed_by(folder, raw, trust) if trust else ""
    return raw, parse_manifest(raw, folder / MANIFEST), signed_by


def _signed_by(folder: Path, manifest: bytes, trust: Trust) -> str:
    """The key's id; empty for an unsigned bundle where that is allowed.

    A signature that is there must be good even so, unless there is no key to check it with.
    """
    path = folder / SIGNATURE
    if trust.unsigned_allowed and not (trust.keys and os.path.lexists(path)):
        return ""
    if not os.path.lexists(path):
        raise BundleError(
            f"{path}: not there, the bundle is not signed; run edge-export sign {folder} --key "
            'KEY, or let unsigned ones run: agent.unsigned_bundles = "allow"'
        )
    return verify(manifest, _read(path, MAX_BYTES), trust, path)


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """`bundle.json`'s bytes as a Manifest; `path` is for the message only."""
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # A key may hold a line break, and msgspec repeats it as it is.
        why = " ".join(str(error).split())
        if why.endswith((".file.name`", ".golden.name`")):
            why += ": a file has a plain name and lies in the bundle's own folder"
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
    """A plain file, no link: what lies elsewhere may be changed without touching the bundle."""
    try:
        with open(path, "rb", opener=no_link) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BundleError(f"{path}: not a plain file; copy the bundle again")
            if found.st_size > limit_bytes:
                raise BundleError(
                    f"{path}: {found.st_size} bytes, more than the limit of {limit_bytes}"
                )
            return file.read(limit_bytes)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the folder's name
        if getattr(error, "errno", None) == errno.ELOOP:
            raise BundleError(
                f"{path}: a link; a bundle holds its files itself, copy it with cp -rL"
            ) from None
        why = getattr(error, "strerror", None) or error
        raise BundleError(f"{path}: {why}; is this folder a whole bundle?") from None


def no_link(path: str, flags: int) -> int:
    # Without O_NONBLOCK opening a pipe would wait for somebody to write.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _verified(folder: Path, file: File) -> bytes:
    data = _read(folder / file.name, _MAX_FILE_BYTES)
    if describe(file.name, data) != file:
        raise BundleError(
            f"{folder / file.name}: sha256 is not the one in {MANIFEST} "
            f"({len(data)} bytes, {file.size_bytes} expected); copy the bundle again"
        )
    return data
