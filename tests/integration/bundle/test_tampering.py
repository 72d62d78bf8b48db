"""A bundle somebody had in his hands: each way to change it, and what the agent says to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.__main__ import main
from edge_agent.agent import LoadedBundle, prepare_stages
from edge_agent.bundle.reader import encode_manifest, load, parse_manifest
from edge_agent.bundle.version_history import FILE
from edge_agent.config import config as configs
from edge_agent.errors import BundleError, ConfigError
from export import signing_keys

FILES = (
    *("bundle.json", "bundle.sig", "golden.npz"),
    *("gate-float32.onnx", "gate-int8.onnx", "segmenter-float32.onnx", "segmenter-int8.onnx"),
)
NOWHERE = "mqtt://127.0.0.1:1"
Sign = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle: Path, sign_bundle: Sign) -> Path:
    """A signed bundle of one's own."""
    return sign_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def strict(bundle: Path, key_pair: Path, config_file: Callable[..., Path]) -> Callable[..., Path]:
    """`strict(**keys)`: the config of an agent that takes bundles signed with `key_pair` only."""

    def write(**agent: Any) -> Path:
        trust = {"trusted_keys": [f"{key_pair}.pub"], "unsigned_bundles": "refuse"}
        return config_file(NOWHERE, agent={"bundle": str(bundle), **trust, **agent})

    return write


Strict = Callable[..., Path]


def _prepare(config: Path) -> LoadedBundle:
    return prepare_stages(configs.load(config))


def _refusal(config: Path) -> str:
    with pytest.raises(BundleError) as caught:
        _prepare(config)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def _change(bundle: Path, old: str, new: str) -> None:
    text = (bundle / "bundle.json").read_text()
    assert old in text
    (bundle / "bundle.json").write_text(text.replace(old, new, 1))


def _edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tree = json.loads((bundle / "bundle.json").read_bytes())
    change(tree)
    (bundle / "bundle.json").write_text(json.dumps(tree))


def _set_version(bundle: Path, version: int) -> None:
    _edit(bundle, lambda tree: tree.update(version=version))


def test_untouched_it_is_taken(bundle: Path, strict: Strict, key_pair: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == set(FILES)
    public = signing_keys.read_private(key_pair).public_key()
    assert _prepare(strict()).bundle.signed_by == signing_keys.key_id(public)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file(bundle: Path, strict: Strict, name: str) -> None:
    config, good = strict(), (bundle / name).read_bytes()
    for at in (0, len(good) // 3, len(good) // 2, len(good) - 3):
        data = bytearray(good)
        data[at] ^= 1
        (bundle / name).write_bytes(data)
        said = _refusal(config)
        if name.startswith("bundle."):
            assert said.startswith(f"{bundle / 'bundle.sig'}: ")
        else:
            assert said.startswith(f"{bundle / name}: sha256 is not the one in bundle.json")


def test_swapped_artifacts(bundle: Path, strict: Strict) -> None:
    gate, segmenter = bundle / "gate-float32.onnx", bundle / "segmenter-float32.onnx"
    data = gate.read_bytes()
    gate.write_bytes(segmenter.read_bytes())
    segmenter.write_bytes(data)
    assert f"{gate}: sha256 is not the one in bundle.json" in _refusal(strict())


def test_a_changed_threshold(bundle: Path, strict: Strict) -> None:
    _change(bundle, '"threshold_logit": -1.5', '"threshold_logit": 99.5')
    said = _refusal(strict())
    assert said.startswith(f"{bundle / 'bundle.sig'}: the signature is not of this bundle.json")


def test_the_signature_is_checked_before_the_manifest_is_parsed(
    bundle: Path, strict: Strict
) -> None:
    (bundle / "bundle.json").write_bytes(b"not even JSON")
    assert "the signature is not of this bundle.json" in _refusal(strict())


def test_a_foreign_key(tmp_path: Path, bundle: Path, strict: Strict, sign_bundle: Sign) -> None:
    key_id = signing_keys.generate(tmp_path / "foreign.key")
    sign_bundle(bundle, tmp_path / "foreign.key")
    assert f"signed with key {key_id}, but agent.trusted_keys has " in _refusal(strict())
    assert "agent.trusted_keys has no key" in _refusal(strict(trusted_keys=[]))
    _prepare(strict(trusted_keys=[str(tmp_path / "foreign.key.pub")]))


def test_no_signature(bundle: Path, strict: Strict) -> None:
    (bundle / "bundle.sig").unlink()
    said = _refusal(strict())
    assert said.startswith(f"{bundle / 'bundle.sig'}: not there, the bundle is not signed")
    assert "edge-export sign" in said
    assert 'agent.unsigned_bundles = "allow"' in said


def test_allowed_unsigned_is_not_allowed_badly_signed(
    tmp_path: Path, bundle: Path, strict: Strict, sign_bundle: Sign
) -> None:
    signing_keys.generate(tmp_path / "foreign.key")
    sign_bundle(bundle, tmp_path / "foreign.key")
    assert "agent.trusted_keys has " in _refusal(strict(unsigned_bundles="allow"))
    # Without a key there is nothing to check it with.
    allowed = strict(unsigned_bundles="allow", trusted_keys=[])
    assert _prepare(allowed).bundle.signed_by == ""
    (bundle / "bundle.sig").unlink()
    assert _prepare(strict(unsigned_bundles="allow")).bundle.signed_by == ""


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "gate.onnx\0", "a/b", ".."])
@pytest.mark.parametrize("entry", ["gate", "golden"])
def test_a_path_in_the_manifest(
    bundle: Path, strict: Strict, sign_bundle: Sign, name: str, entry: str
) -> None:
    def change(tree: dict[str, Any]) -> None:
        file = tree["golden"] if entry == "golden" else tree["gate"]["artifacts"][0]["file"]
        file["name"] = name

    _edit(bundle, change)
    assert "the signature is not of this bundle.json" in _refusal(strict())
    sign_bundle(bundle)
    said = _refusal(strict())
    assert said.startswith(f"{bundle / 'bundle.json'}: ")
    assert "a file has a plain name and lies in the bundle's own folder" in said


def test_a_declared_size_of_10_gb(bundle: Path, strict: Strict, sign_bundle: Sign) -> None:
    _edit(bundle, lambda tree: tree["golden"].update(size_bytes=10 * 10**9))
    sign_bundle(bundle)
    said = _refusal(strict())
    assert "Expected `int` <= 1073741824 - at `$.golden.size_bytes`" in said


@pytest.mark.parametrize("name", FILES[2:])
def test_a_file_of_10_gb(bundle: Path, strict: Strict, name: str) -> None:
    with (bundle / name).open("r+b") as file:
        file.truncate(10 * 10**9)  # takes no room on the disk
    assert f"{bundle / name}: 10000000000 bytes, more than the limit" in _refusal(strict())


@pytest.mark.parametrize("name", ["bundle.json", *FILES[2:]])
def test_a_missing_file(bundle: Path, strict: Strict, name: str) -> None:
    (bundle / name).unlink()
    said = _refusal(strict())
    assert said.startswith(f"{bundle / name}: No such file or directory; is this folder a whole")


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_the_same_content_elsewhere(
    tmp_path: Path, bundle: Path, strict: Strict, name: str
) -> None:
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    assert f"{bundle / name}: a link; a bundle holds its files itself" in _refusal(strict())


def test_a_link_to_the_whole_bundle_is_one_to_a_folder(
    tmp_path: Path, bundle: Path, strict: Strict
) -> None:
    (tmp_path / "current").symlink_to(bundle)
    _prepare(strict(bundle=str(tmp_path / "current")))


@pytest.mark.parametrize("name", ["bundle.json", "bundle.sig", "golden.npz"])
def test_a_pipe_is_not_waited_for(bundle: Path, strict: Strict, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    assert f"{bundle / name}: not a plain file" in _refusal(strict())


def test_a_huge_signature_is_not_read(bundle: Path, strict: Strict) -> None:
    with (bundle / "bundle.sig").open("ab") as file:
        file.truncate(1 << 40)
    assert "more than the limit of 4096" in _refusal(strict())


def test_a_folder_name_with_a_nul(strict: Strict) -> None:
    """The configuration may not hold it, and a bundle's own check does not count on that."""
    with pytest.raises(ConfigError, match=r"agent\.bundle: holds a NUL"):
        _prepare(strict(bundle="a\0b"))
    with pytest.raises(BundleError, match="embedded null byte"):
        load(Path("a\0b"))


# The commands.


@pytest.mark.parametrize("command", ["check", "run"])
def test_commands_end_in_one_line_and_exit_code_2(
    tmp_path: Path,
    bundle: Path,
    strict: Strict,
    agent: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    (bundle / "bundle.sig").unlink()
    if command == "check":
        assert main(["check", "--config", str(strict())]) == 2
        said = capsys.readouterr().err
    else:
        ended = agent(strict()).ended()
        assert (ended.code, ended.summary) == (2, None)
        said = ended.stderr
        assert not (tmp_path / "state" / FILE).exists(), "it did not run"
    (line,) = [x for x in said.splitlines() if x.startswith("edge-agent: ")]
    assert "bundle.sig: not there" in line
    assert "Traceback" not in said


@pytest.mark.system
def test_an_older_version_of_a_signed_bundle(
    tmp_path: Path,
    free_port: int,
    bundle: Path,
    strict: Strict,
    sign_bundle: Sign,
    agent: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = strict()
    # A broker that is there: without one the end waits for it.
    broker = ("--set", "mqtt.broker=embedded", "--set", f"mqtt.port={free_port}")
    words = ("--frames", "1", *broker)
    _set_version(bundle, 5)
    sign_bundle(bundle)
    done = agent(config, *words).ended()
    assert done.code == 0, done.stderr
    remembered = json.loads((tmp_path / "state" / FILE).read_bytes())["highest"]["tiny"]
    assert remembered == {"version": 5, "sha256": done.summary["bundle"]["sha256"]}

    _set_version(bundle, 3)
    sign_bundle(bundle)
    done = agent(config, *words).ended()
    assert done.code == 2
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("edge-agent: ")]
    assert "tiny version 3 is older than 5, which ran here" in line
    assert "--allow-older" in line
    assert main(["check", "--config", str(config)]) == 2
    assert main(["check", "--config", str(config), "--allow-older"]) == 0
    capsys.readouterr()

    done = agent(config, *words, "--allow-older").ended()
    assert done.code == 0, done.stderr
    assert done.summary["bundle"]["version"] == 3
    # The highest stays the highest.
    assert json.loads((tmp_path / "state" / FILE).read_bytes())["highest"]["tiny"] == remembered

    # A damaged memory is set aside and never stops the line.
    (tmp_path / "state" / FILE).write_bytes(b"\0" * 10)
    done = agent(config, *words).ended()
    assert done.code == 0, done.stderr
    assert "bundle-versions.json: damaged (" in done.stderr
    assert "set aside as bundle-versions.json.damaged-" in done.stderr
    remembered = json.loads((tmp_path / "state" / FILE).read_bytes())["highest"]["tiny"]
    assert remembered["version"] == 3


def test_the_bytes_are_signed_and_not_what_they_say(
    bundle: Path, strict: Strict, sign_bundle: Sign
) -> None:
    path = bundle / "bundle.json"
    manifest = parse_manifest(path.read_bytes(), path)
    path.write_bytes(msgspec.json.format(encode_manifest(manifest), indent=4))
    assert parse_manifest(path.read_bytes(), path) == manifest
    assert "the signature is not of this bundle.json" in _refusal(strict())
    sign_bundle(bundle)
    _prepare(strict())
