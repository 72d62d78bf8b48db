"""100,000 manifests and as many signatures: a value or a BundleError, never anything else.

Random changes of good ones, of their bytes and of their trees. An example of hypothesis is a seed
for many of them, since drawing each from hypothesis takes a hundred times longer than parsing it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.bundle.reader import encode_manifest, parse_manifest
from edge_agent.bundle.signature import Trust, key_id, sign, verify
from edge_agent.errors import BundleError

pytestmark = pytest.mark.slow

EXAMPLES, BATCH = 200, 500
SEEDS = st.integers(0, 2**64 - 1)

# Pieces of JSON, some of it none: numbers no type holds, names no file has, depth.
NASTY = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-0"),
    *(b"9" * 20, b"9" * 400, b"9" * 5000, b"1e-400", b"0.1" + b"1" * 400, b"2147483648"),
    *(b'""', b'"x"', b'"../x"', b'"/etc/passwd"', b'"a\\u0000"', b'"\\ud800"', b'"\xff"'),
    *(b'"\x00"', b'"a\\nb"', b'"' + b"a" * 64 + b'"', b'"' + b"x" * 9000 + b'"', b'"onnx"'),
    *(b"[]", b"{}", b"[" * 3000 + b"]" * 3000, b"[" * 3000, b'{"a":' * 3000, b'{"name": {}}'),
    *(b"[null]", b'{"height_px": 1, "width_px": 1, "overlap_px": 1e9}', b"", b",", b"//"),
)


def _file(name: str) -> dict[str, Any]:
    return {"name": name, "sha256": "a" * 64, "size_bytes": 100}


def _stage(name: str, channels: int, **extra: Any) -> dict[str, Any]:
    tiles = {"height_px": 256, "width_px": 256, "overlap_px": 32}
    spec = {"height": 256, "width": 256, "channels": channels, "scaling": "unit", "tiles": tiles}
    artifact = {
        "file": _file(f"{name}.onnx"),
        "format": "onnx",
        "precision": "int8",
        "cpu_architecture": "any",
        "input_name": "image",
        "output_name": "out",
        "golden_tolerance": 0.01,
        **extra,
    }
    return {"input": spec, "artifacts": [artifact]}


MANIFEST = json.dumps(
    {
        "schema_version": 1,
        "name": "steel",
        "version": 3,
        "class_names": ["pit", "scratch"],
        "gate": _stage("gate", 3, threshold_logit=-4.5),
        "segmenter": _stage("segmenter", 1),
        "regions": {"min_probability": 0.5, "min_area_px": 150},
        "golden": _file("golden.npz"),
        "tools": {"onnx": "1.19"},
        "provenance": {},
    }
).encode()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
TRUST = Trust({key_id(KEY.public_key()): KEY.public_key()}, "agent.trusted_keys")
SIGNATURE = sign(MANIFEST, KEY)


def _bytes_changed(rng: random.Random, good: bytes) -> bytes:
    data = bytearray(good)
    for _ in range(rng.randint(1, 3)):
        at, how = rng.randrange(len(data) + 1), rng.randrange(5)
        if how == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at:at] = rng.choice(NASTY)
        elif how == 2:
            del data[at : at + rng.randint(1, 40)]
        elif how == 3:
            data[at:at] = data[rng.randrange(len(data) + 1) :][: rng.randint(1, 60)]
        else:
            data[at : at + 4] = rng.randbytes(rng.randint(0, 8))
    return bytes(data)


def _tree_changed(rng: random.Random, good: bytes) -> bytes:
    """Any value, at any depth, is gone, doubled under another key, or something nasty."""
    tree = json.loads(good)
    marks = []
    for _ in range(rng.randint(1, 3)):
        at = tree
        while True:
            keys = list(at) if isinstance(at, dict) else range(len(at))
            if not keys:
                break
            key = rng.choice(keys)
            below = at[key]
            if isinstance(below, dict | list) and rng.random() < 0.8:
                at = below
                continue
            how = rng.randrange(6)
            if how == 0:
                del at[key]
            elif how == 1 and isinstance(at, dict):
                at[rng.choice(("", "extra", f"{key}\n", "\ud800", "__class__"))] = below
            elif how == 2 and isinstance(at, list):
                at.extend([below] * rng.choice((1, 40, 70)))
            else:
                at[key] = f"@{len(marks)}@"
                marks.append(rng.choice(NASTY))
            break
    raw = json.dumps(tree).encode()
    for index, nasty in enumerate(marks):
        raw = raw.replace(b'"@%d@"' % index, nasty)
    return raw


def _hold(seed: int, good: bytes, use: Callable[[bytes], bool]) -> tuple[int, int]:
    """A batch of changes; how many were taken and how many refused."""
    rng = random.Random(seed)
    taken = 0
    for index in range(BATCH):
        raw = (_bytes_changed if index % 2 else _tree_changed)(rng, good)
        try:
            taken += use(raw)
        except BundleError as error:
            assert len(str(error).splitlines()) == 1, raw
        except BaseException as error:
            raise AssertionError(raw) from error
    return taken, BATCH - taken


def _parse(raw: bytes) -> bool:
    manifest = parse_manifest(raw, Path("bundle.json"))
    # What is taken can be written, and is the same when it is read again.
    assert parse_manifest(encode_manifest(manifest), Path("bundle.json")) == manifest
    stages = (manifest.gate, manifest.segmenter)
    files = [artifact.file for stage in stages for artifact in stage.artifacts]
    for file in (manifest.golden, *files):
        assert Path(file.name).name == file.name
        assert 1 <= file.size_bytes <= 1 << 30
    return True


def test_100_000_manifests() -> None:
    counts: list[tuple[int, int]] = []

    @given(seed=SEEDS)
    @settings(max_examples=EXAMPLES, deadline=None)
    def run(seed: int) -> None:
        counts.append(_hold(seed, MANIFEST, _parse))

    run()
    taken, refused = (sum(column) for column in zip(*counts, strict=True))
    assert taken + refused >= 100_000 * 0.95  # hypothesis may end early where seeds repeat
    assert taken > 1000, "changes that break everything find nothing"


def test_100_000_signatures() -> None:
    """The only ones taken are those that say the same in other words."""
    want = json.loads(SIGNATURE)

    def use(raw: bytes) -> bool:
        verify(MANIFEST, raw, TRUST, Path("bundle.sig"))
        assert json.loads(raw) == want
        return True

    counts: list[tuple[int, int]] = []

    @given(seed=SEEDS)
    @settings(max_examples=EXAMPLES, deadline=None)
    def run(seed: int) -> None:
        counts.append(_hold(seed, SIGNATURE, use))

    run()
    assert sum(taken + refused for taken, refused in counts) >= 100_000 * 0.95
