"""The bundle: nothing is opened that is not what the manifest says, and every refusal is said."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.bundle.manifest import Bundle, Manifest, OldestRuntime, RegionRule, Tiles
from edge_agent.bundle.reader import describe, encode_manifest, load, parse_manifest
from edge_agent.errors import BundleError

# No network: only `edge_agent.inspection.runtime` opens these.
GATE = b"a gate in onnx" * 20
SEGMENTER = b"a segmenter in tflite" * 20
LOGITS = np.array([-3.5, 2.25], np.float32)


def _golden() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        **{
            "image/00": np.full((4, 6), 10, np.uint8),
            "image/01": np.full((4, 6, 3), 20, np.uint8),
            "output/gate.onnx": LOGITS,
            "output/segmenter.tflite": np.zeros((2, 4, 6, 2), np.uint8),
        },
    )
    return buffer.getvalue()


GOLDEN = _golden()
FILES = {"gate.onnx": GATE, "segmenter.tflite": SEGMENTER, "golden.npz": GOLDEN}


def _file(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def _tree() -> dict[str, Any]:
    """`bundle.json` as an exporter that is not ours might write it."""
    return {
        "schema_version": 1,
        "name": "steel",
        "version": 3,
        "class_names": ["pit", "scratch"],
        "gate": {
            "input": {"height": 256, "width": 256, "channels": 3, "scaling": "unit"},
            "artifacts": [
                {
                    "file": _file("gate.onnx", GATE),
                    "format": "onnx",
                    "precision": "int8",
                    "cpu_architecture": "any",
                    "input_name": "image",
                    "output_name": "logit",
                    "golden_tolerance": 0.01,
                    "threshold_logit": -4.5,
                }
            ],
        },
        "segmenter": {
            "input": {"height": 256, "width": 256, "channels": 1, "scaling": "standardise"},
            "artifacts": [
                {
                    "file": _file("segmenter.tflite", SEGMENTER),
                    "format": "tflite",
                    "precision": "float32",
                    "cpu_architecture": "x86_64",
                    "input_name": "image",
                    "output_name": "maps",
                    "golden_tolerance": 0.002,
                }
            ],
        },
        "regions": {},
        "golden": _file("golden.npz", GOLDEN),
        "tools": {"onnx": "1.19"},
        "provenance": {},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    _write_manifest(tmp_path, _tree())
    return tmp_path


def _write_manifest(folder: Path, tree: dict[str, Any]) -> None:
    (folder / "bundle.json").write_text(json.dumps(tree), encoding="utf-8")


def _refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder) in message
    return message


def _changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    tree = _tree()
    change(tree)
    return tree


def _parse_refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps(tree).encode(), Path("b/bundle.json"))
    message = str(caught.value)
    assert message.startswith("b/bundle.json: ")
    assert len(message.splitlines()) == 1
    return message


def test_a_manifest_from_before_the_operator_versions_is_read() -> None:
    manifest = parse_manifest(json.dumps(_tree()).encode(), Path("b/bundle.json"))
    for stage in (manifest.gate, manifest.segmenter):
        assert [(a.op_versions, a.oldest_runtime) for a in stage.artifacts] == [({}, None)]


def test_what_the_export_says_of_an_old_runtime_comes_back_as_it_was() -> None:
    tree = _tree()
    tree["gate"]["artifacts"][0] |= {
        "op_versions": {"ai.onnx": 17, "ir_version": 8},
        "oldest_runtime": {"name": "onnxruntime 1.23", "refusal": "", "tried": False},
    }
    manifest = parse_manifest(json.dumps(tree).encode(), Path("b/bundle.json"))
    again = parse_manifest(encode_manifest(manifest), Path("b/bundle.json"))
    (artifact,) = again.gate.artifacts
    assert artifact.op_versions == {"ai.onnx": 17, "ir_version": 8}
    assert artifact.oldest_runtime == OldestRuntime(
        name="onnxruntime 1.23", refusal="", tried=False
    )


# A good bundle.


def test_a_whole_bundle_loads(folder: Path) -> None:
    bundle = load(folder)
    assert isinstance(bundle, Bundle)
    assert (bundle.manifest.name, bundle.manifest.version) == ("steel", 3)
    assert bundle.manifest.class_names == ("pit", "scratch")
    assert bundle.manifest.regions == RegionRule()
    (gate,), (segmenter,) = bundle.manifest.gate.artifacts, bundle.manifest.segmenter.artifacts
    assert gate.threshold_logit == -4.5
    assert (gate.label, segmenter.label) == ("onnx-int8", "tflite-float32")
    assert bundle.path(gate).read_bytes() == GATE
    assert bundle.manifest.gate.input.interpolation == "area"
    assert bundle.sha256 == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()


def test_golden_frames_come_in_order_with_their_outputs(folder: Path) -> None:
    golden = load(folder).golden
    assert [image.shape for image in golden.images] == [(4, 6), (4, 6, 3)]
    assert [int(image.flat[0]) for image in golden.images] == [10, 20]
    assert set(golden.outputs) == {"gate.onnx", "segmenter.tflite"}
    np.testing.assert_array_equal(golden.outputs["gate.onnx"], LOGITS)


def test_files_nobody_names_do_no_harm(folder: Path) -> None:
    (folder / "README.txt").write_bytes(b"for people")
    assert load(folder).manifest.name == "steel"


def test_what_we_write_is_what_we_read() -> None:
    manifest = parse_manifest(json.dumps(_tree()).encode(), Path("x"))
    written = encode_manifest(manifest)
    assert parse_manifest(written, Path("x")) == manifest
    assert encode_manifest(parse_manifest(written, Path("x"))) == written
    assert written.endswith(b"}\n")


def test_a_stage_may_ask_for_tiles_and_says_nothing_of_them_if_not() -> None:
    tree = _tree()
    plain = encode_manifest(parse_manifest(json.dumps(tree).encode(), Path("x")))
    assert b"tiles" not in plain
    # What is left out is no more than that: all else is written, defaults too.
    assert json.loads(plain)["gate"]["input"] == {**tree["gate"]["input"], "interpolation": "area"}
    tiles = {"height_px": 256, "width_px": 256, "overlap_px": 32}
    tree["gate"]["input"]["tiles"] = tiles
    manifest = parse_manifest(json.dumps(tree).encode(), Path("x"))
    assert manifest.gate.input.tiles == Tiles(**tiles)
    assert manifest.segmenter.input.tiles is None
    assert json.loads(encode_manifest(manifest))["gate"]["input"]["tiles"] == tiles
    tiles["overlap_px"] = 256
    assert "overlap_px" in _parse_refusal(tree)


def test_a_file_is_described_by_its_content() -> None:
    assert msgspec.to_builtins(describe("gate.onnx", GATE)) == _file("gate.onnx", GATE)


# Files that are not there, or not what they were.


@pytest.mark.parametrize("name", ["bundle.json", *FILES])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    message = _refusal(folder)
    assert message.startswith(f"{folder / name}: No such file or directory")
    assert "whole bundle" in message


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "bundle.json: No such file" in _refusal(tmp_path / "gone")


def test_a_file_as_folder(folder: Path) -> None:
    assert "Not a directory" in _refusal(folder / "gate.onnx")


@pytest.mark.parametrize("name", ["bundle.json", *FILES])
def test_a_folder_as_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    assert "Is a directory" in _refusal(folder)


@pytest.mark.parametrize("name", list(FILES))
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_one_flipped_bit_is_enough(folder: Path, name: str, where: float, bit: int) -> None:
    data = bytearray(FILES[name])
    data[int(where * len(data))] ^= 1 << bit
    (folder / name).write_bytes(data)
    try:
        message = _refusal(folder)
    finally:
        (folder / name).write_bytes(FILES[name])
    assert message.startswith(f"{folder / name}: sha256 is not the one in bundle.json")


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_flipped_bit_of_the_manifest_never_goes_unseen(
    folder: Path, where: float, bit: int
) -> None:
    good = json.dumps(_tree()).encode()
    data = bytearray(good)
    data[int(where * len(data))] ^= 1 << bit
    (folder / "bundle.json").write_bytes(data)
    try:
        bundle = load(folder)
    except BundleError as error:
        assert len(str(error).splitlines()) == 1
    else:  # another name, say: but then it is another bundle
        assert bundle.sha256 != hashlib.sha256(good).hexdigest()


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("data", [b"", b"short", None])
def test_a_file_of_another_size(folder: Path, name: str, data: bytes | None) -> None:
    data = FILES[name] + b"\0" if data is None else data
    (folder / name).write_bytes(data)
    message = _refusal(folder)
    assert message.startswith(f"{folder / name}: sha256 is not")
    assert f"({len(data)} bytes, {len(FILES[name])} expected)" in message


@pytest.mark.parametrize(
    "entry",
    [
        lambda tree: tree["gate"]["artifacts"][0]["file"],
        lambda tree: tree["segmenter"]["artifacts"][0]["file"],
        lambda tree: tree["golden"],
    ],
)
def test_a_declared_size_that_is_not_the_files(
    folder: Path, entry: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    tree = _tree()
    entry(tree)["size_bytes"] += 1
    _write_manifest(folder, tree)
    assert f"{folder / entry(tree)['name']}: " in _refusal(folder)


def test_files_may_not_change_places(folder: Path) -> None:
    (folder / "gate.onnx").write_bytes(SEGMENTER)
    (folder / "segmenter.tflite").write_bytes(GATE)
    assert "gate.onnx: sha256 is not" in _refusal(folder)


# The manifest.


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"bundle",
        b"\xff\xfe{\x00}\x00",
        b"\x00" * 100,
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"schema_version": ' + b"1" * 5000 + b"}",
        b'{"schema_version": 1e999}',
        b'{"schema_version": NaN}',
        b'{"\\ud800": 1}',
        json.dumps(_tree()).encode()[:-1],
        json.dumps(_tree()).encode() + b"}",
    ],
)
def test_corrupt_json(folder: Path, raw: bytes) -> None:
    (folder / "bundle.json").write_bytes(raw)
    assert "export the bundle again" in _refusal(folder)


def test_a_huge_manifest_is_not_read(folder: Path) -> None:
    with (folder / "bundle.json").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    assert "more than the limit of 1048576" in _refusal(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../gate.onnx",
        "..",
        ".",
        "",
        "/etc/passwd",
        "models/gate.onnx",
        "models\\gate.onnx",
        "C:gate.onnx",
        ".hidden",
        "-rf",
        "gate.onnx\n",
        "gate.onnx\0",
        "gate onnx",
        "gäte.onnx",
        "g" * 129,
    ],
)
def test_only_plain_names_inside_the_folder(folder: Path, name: str) -> None:
    # The file is there with this content: only its name is refused.
    (folder.parent / "gate.onnx").write_bytes(GATE)
    for entry in ("gate", "golden"):
        tree = _tree()
        file = tree["golden"] if entry == "golden" else tree["gate"]["artifacts"][0]["file"]
        file["name"] = name
        _write_manifest(folder, tree)
        assert "Expected `str` matching regex" in _refusal(folder)


@pytest.mark.parametrize("value", [None, "absent"])
def test_a_gate_without_a_threshold_is_not_calibrated(folder: Path, value: str | None) -> None:
    tree = _tree()
    artifact = tree["gate"]["artifacts"][0]
    if value is None:
        artifact["threshold_logit"] = None
    else:
        del artifact["threshold_logit"]
    _write_manifest(folder, tree)
    message = _refusal(folder)
    assert "gate artifact gate.onnx has no threshold_logit; run edge-calibrate gate" in message


def test_each_gate_artifact_needs_its_own_threshold() -> None:
    tree = _tree()
    second = copy.deepcopy(tree["gate"]["artifacts"][0])
    del second["threshold_logit"]
    second["file"]["name"] = "second.onnx"
    tree["gate"]["artifacts"].append(second)
    assert "gate artifact second.onnx has no threshold_logit" in _parse_refusal(tree)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown key": (lambda t: t.update(extra=1), "unknown field `extra`"),
    "unknown key of a stage": (lambda t: t["gate"].update(extra=1), "unknown field `extra`"),
    "unknown key of an artifact": (
        lambda t: t["gate"]["artifacts"][0].update(extra=1),
        "`$.gate.artifacts[0]`",
    ),
    "unknown key of a file": (lambda t: t["golden"].update(extra=1), "`$.golden`"),
    "unknown key with a line break": (lambda t: t.update({"a\nb": 1}), "unknown field `a b`"),
    "no schema version": (lambda t: t.pop("schema_version"), "`schema_version`"),
    "next schema version": (lambda t: t.update(schema_version=2), "`$.schema_version`"),
    "no name": (lambda t: t.pop("name"), "required field `name`"),
    "name with a slash": (lambda t: t.update(name="a/b"), "`$.name`"),
    "name with a line break": (lambda t: t.update(name="steel\n"), "`$.name`"),
    "version 0": (lambda t: t.update(version=0), "`$.version`"),
    "huge version": (lambda t: t.update(version=2**31), "`$.version`"),
    "huge area": (lambda t: t["regions"].update(min_area_px=2**31), "`$.regions.min_area_px`"),
    "height 0": (lambda t: t["gate"]["input"].update(height=0), "`$.gate.input.height`"),
    "huge width": (lambda t: t["gate"]["input"].update(width=10**6), "`$.gate.input.width`"),
    "version as text": (lambda t: t.update(version="3"), "`$.version`"),
    "no classes": (lambda t: t.update(class_names=[]), "`$.class_names`"),
    "too many classes": (lambda t: t.update(class_names=["x"] * 65), "`$.class_names`"),
    "no artifacts": (lambda t: t["gate"].update(artifacts=[]), "`$.gate.artifacts`"),
    "unknown format": (
        lambda t: t["gate"]["artifacts"][0].update(format="pickle"),
        "`$.gate.artifacts[0].format`",
    ),
    "unknown precision": (
        lambda t: t["gate"]["artifacts"][0].update(precision="int4"),
        "`$.gate.artifacts[0].precision`",
    ),
    "unknown machine": (
        lambda t: t["gate"]["artifacts"][0].update(cpu_architecture="vax"),
        "`$.gate.artifacts[0].cpu_architecture`",
    ),
    "threshold as text": (
        lambda t: t["gate"]["artifacts"][0].update(threshold_logit="low"),
        "`$.gate.artifacts[0].threshold_logit`",
    ),
    "two channels": (
        lambda t: t["gate"]["input"].update(channels=2),
        "`$.gate.input.channels`",
    ),
    "unknown scaling": (
        lambda t: t["segmenter"]["input"].update(scaling="caffe"),
        "`$.segmenter.input.scaling`",
    ),
    "probability 1": (
        lambda t: t["regions"].update(min_probability=1.0),
        "`$.regions.min_probability`",
    ),
    "area 0": (lambda t: t["regions"].update(min_area_px=0), "`$.regions.min_area_px`"),
    "huge size": (lambda t: t["golden"].update(size_bytes=1 << 40), "`$.golden.size_bytes`"),
    "huger size": (lambda t: t["golden"].update(size_bytes=10**40), "`$.golden.size_bytes`"),
    "no size": (lambda t: t["golden"].update(size_bytes=0), "`$.golden.size_bytes`"),
    "negative size": (lambda t: t["golden"].update(size_bytes=-1), "`$.golden.size_bytes`"),
    "short hash": (lambda t: t["golden"].update(sha256="ab"), "`$.golden.sha256`"),
    "hash in capitals": (
        lambda t: t["golden"].update(sha256=t["golden"]["sha256"].upper()),
        "`$.golden.sha256`",
    ),
    "tools that are no text": (lambda t: t["tools"].update(onnx=1.19), "`$.tools[...]`"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_manifest_may_not_say(change: str) -> None:
    make, words = CHANGES[change]
    assert words in _parse_refusal(_changed(make))


# The golden file, intact by its hash and still no golden file.


def _zip_with_a_bad_entry() -> bytes:
    data = bytearray(GOLDEN)
    at = data.index(b"image/00")  # the local header; the directory still has the old name
    data[at] ^= 1
    return bytes(data)


def _array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the pickle was opened",))


def _objects() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"image/00": np.array([_Trap()], dtype=object)})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"garbage",
        lambda: b"PK\x03\x04garbage",
        lambda: GOLDEN[: len(GOLDEN) // 2],
        lambda: b"\x93NUMPY\x01\x00\xff\xff",
        _zip_with_a_bad_entry,
        _array,
        lambda: pickle.dumps(_Trap()),
        _objects,
    ],
)
def test_a_golden_file_that_is_none(folder: Path, make: Callable[[], bytes]) -> None:
    data = make()
    (folder / "golden.npz").write_bytes(data)
    tree = _tree()
    tree["golden"] = _file("golden.npz", data)
    _write_manifest(folder, tree)
    message = _refusal(folder)
    assert message.startswith(f"{folder / 'golden.npz'}: not a golden file (")
    assert message.endswith("); export again")


@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1),
    share=st.floats(0.5, 1),
)
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_golden_file_is_read_or_refused(
    folder: Path, flips: list[tuple[float, int]], share: float
) -> None:
    data = bytearray(GOLDEN)
    for where, mask in flips:
        data[int(where * len(data))] ^= mask
    del data[round(share * len(data)) :]
    (folder / "golden.npz").write_bytes(data)
    tree = _tree()
    tree["golden"] = _file("golden.npz", bytes(data))
    _write_manifest(folder, tree)
    try:
        load(folder)
    except BundleError as error:
        assert len(str(error).splitlines()) == 1


# Whatever comes.

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.sampled_from(("onnx", "unit", "any", "../x", "a" * 64)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=4,
)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in the tree."""
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree))
    else:
        return [path]
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


PLACES = [place for place in _places(_tree()) if place]


def _manifest_or_one_line(raw: bytes) -> None:
    try:
        manifest = parse_manifest(raw, Path("bundle.json"))
    except BundleError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(manifest, Manifest)
        for stage in (manifest.gate, manifest.segmenter):
            for artifact in stage.artifacts:
                assert Path(artifact.file.name).name == artifact.file.name


@given(
    changes=st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(("set", "delete", "add")), JSON),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_change_of_a_good_manifest_is_a_manifest_or_a_bundle_error(
    changes: list[tuple[tuple[Any, ...], str, Any]],
) -> None:
    tree = _tree()
    for place, how, value in changes:
        at: Any = tree
        try:
            for key in place[:-1]:
                at = at[key]
            if how == "delete":
                del at[place[-1]]
            elif how == "set":
                at[place[-1]] = value
            else:
                at[f"{place[-1]}x"] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    _manifest_or_one_line(json.dumps(tree).encode())


@given(raw=st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_no_manifest(raw: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(raw, Path("bundle.json"))
    assert len(str(caught.value).splitlines()) == 1


@given(
    where=st.floats(0, 1, exclude_max=True), length=st.integers(0, 40), data=st.binary(max_size=20)
)
@settings(max_examples=200, deadline=None)
def test_any_splice_of_a_good_manifest_is_a_manifest_or_a_bundle_error(
    where: float, length: int, data: bytes
) -> None:
    raw = json.dumps(_tree()).encode()
    at = int(where * len(raw))
    _manifest_or_one_line(raw[:at] + data + raw[at + length :])
