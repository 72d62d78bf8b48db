"""`edge-agent bundle verify`: every artifact tried here, said in a table, with an exit code."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

from edge_agent.__main__ import main
from edge_agent.bundle import manifest as bundles
from edge_agent.bundle import reader
from edge_agent.inspection.artifact_check import verify
from edge_agent.inspection.runtime import choose, self_test

CPU = "CPUExecutionProvider"
OTHER_CPU = "aarch64" if platform.machine() == "x86_64" else "x86_64"


class Spoiled:
    """A copy of the tiny bundle with one thing wrong; its hashes are right all the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = reader.load(folder).manifest

    def artifact(self, stage: str, index: int, data: bytes | None = None, **changes: Any) -> None:
        part: bundles.Stage = getattr(self.manifest, stage)
        artifacts = list(part.artifacts)
        if data is not None:
            (self.folder / artifacts[index].file.name).write_bytes(data)
            changes["file"] = reader.describe(artifacts[index].file.name, data)
        artifacts[index] = msgspec.structs.replace(artifacts[index], **changes)
        changed = msgspec.structs.replace(part, artifacts=tuple(artifacts))
        self._write(msgspec.structs.replace(self.manifest, **{stage: changed}))

    def golden(self, name: str, shift: float) -> None:
        path = self.folder / self.manifest.golden.name
        with np.load(path) as stored:
            arrays = {key: stored[key] for key in stored.files}
        arrays[f"output/{name}"] = arrays[f"output/{name}"] + np.float32(shift)
        np.savez_compressed(path, **arrays)
        described = reader.describe(path.name, path.read_bytes())
        self._write(msgspec.structs.replace(self.manifest, golden=described))

    def _write(self, manifest: bundles.Manifest) -> None:
        self.manifest = manifest
        (self.folder / bundles.MANIFEST).write_bytes(reader.encode_manifest(manifest))


@pytest.fixture
def spoiled(tmp_path: Path, tiny_bundle: Path) -> Spoiled:
    return Spoiled(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))


def rows(
    capsys: pytest.CaptureFixture[str], folder: Path, *words: str, code: int = 0
) -> dict[tuple[str, str], dict[str, Any]]:
    """By stage and artifact, what `--json` says."""
    capsys.readouterr()
    command = ["bundle", "verify", str(folder), "--json", "--runs", "3", "--threads", "1"]
    assert main([*command, *words]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["fit"] == (code == 0)
    return {(row["stage"], row["artifact"]): row for row in found["rows"]}


def test_every_artifact_is_judged_and_one_a_stage_is_chosen(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Percentiles of real times are in order whatever they are of: of these they are known.
    took_ms = iter([(14.0, 10.0, 24.0), (7.0, 5.0, 12.0)] * 2)
    monkeypatch.setattr(self_test, "_times_ms", lambda *_: next(took_ms))
    found = rows(capsys, tiny_bundle)
    assert len(found) == 4
    for stage in ("gate", "segmenter"):
        verdicts = sorted(row["verdict"] for (s, _), row in found.items() if s == stage)
        assert verdicts == ["chosen", "works"]
    for row in found.values():
        assert row["runtime"] == f"onnxruntime {onnxruntime.__version__}"
        assert 0 <= row["difference"] <= row["allowed"]
        chosen = row["verdict"] == "chosen"
        assert chosen == (row["artifact"] == "onnx-int8")
        times_ms = (7.0, 11.5) if chosen else (14.0, 23.0)
        assert (row["p50_ms"], row["p95_ms"]) == pytest.approx(times_ms)
        assert row["reason"] == ("fastest of 2 that reproduce the golden outputs" if chosen else "")


def test_the_chosen_one_is_the_fastest(tiny_bundle: Path) -> None:
    found = verify(reader.load(tiny_bundle), threads=1, runs=5, providers=(CPU,))
    assert (found.runs, found.threads, found.machine) == (5, 1, platform.machine())
    for stage in ("gate", "segmenter"):
        times = {r.verdict: r.p50_ms for r in found.rows if r.stage == stage}
        assert times["chosen"] is not None
        assert times["works"] is not None
        assert times["chosen"] <= times["works"]


def test_the_table_says_it_all(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "verify", str(tiny_bundle), "--runs", "2"]) == 0
    head, titles, *lines, gate, segmenter = capsys.readouterr().out.splitlines()
    assert reader.load(tiny_bundle).sha256[:12] in head
    assert platform.machine() in head
    columns = ("stage", "artifact", "runtime", "difference/allowed", "p50 ms", "p95 ms", "verdict")
    assert [titles.index(name) for name in columns] == sorted(map(titles.index, columns))
    assert len(lines) == 4
    assert gate.startswith("gate: the agent runs onnx-")
    assert "fastest of 2" in gate
    assert segmenter.startswith("segmenter: the agent runs onnx-")


def test_wrong_golden_outputs_are_refused_with_difference_and_tolerance(
    spoiled: Spoiled, capsys: pytest.CaptureFixture[str]
) -> None:
    name = spoiled.manifest.gate.artifacts[0].file.name
    spoiled.golden(name, 0.5)
    row = rows(capsys, spoiled.folder)["gate", "onnx-float32"]
    assert row["verdict"] == "refused"
    assert row["difference"] == pytest.approx(0.5, abs=0.01)
    assert row["allowed"] == 0.01
    assert row["reason"] == "differs from the golden outputs by 0.5, 0.01 allowed"
    assert row["p50_ms"] is row["p95_ms"] is None


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_garbage_with_a_right_hash_is_refused(
    spoiled: Spoiled, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    spoiled.artifact("gate", 0, b"\x1c\x00\x00\x00no network at all", format=kind)
    found = rows(capsys, spoiled.folder)
    row = found["gate", f"{kind}-float32"]
    assert (row["verdict"], row["runtime"], row["difference"]) == ("refused", "", None)
    assert row["reason"].startswith("does not run here: ")
    left = found["gate", "onnx-int8"]
    assert (left["verdict"], left["reason"]) == (
        "chosen",
        "the only one that reproduces the golden outputs",
    )


def test_an_artifact_for_another_cpu_is_refused_without_opening_it(
    spoiled: Spoiled, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled.artifact("segmenter", 1, cpu_architecture=OTHER_CPU)
    label = "onnx-int8-aarch64" if OTHER_CPU == "aarch64" else "onnx-int8"
    row = rows(capsys, spoiled.folder)["segmenter", label]
    assert (row["verdict"], row["reason"]) == ("refused", f"made for {OTHER_CPU}")


def test_a_stage_without_an_artifact_is_exit_1_and_the_table_is_there(
    spoiled: Spoiled, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in (0, 1):
        spoiled.artifact("segmenter", index, cpu_architecture=OTHER_CPU)
    found = rows(capsys, spoiled.folder, code=1)
    assert {row["verdict"] for (s, _), row in found.items() if s == "segmenter"} == {"refused"}
    assert main(["bundle", "verify", str(spoiled.folder), "--runs", "1"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "segmenter: no artifact can be used here"
    (line,) = said.err.splitlines()
    assert line.startswith(f"edge-agent: {spoiled.folder}: ")


def test_a_provider_that_is_not_there_is_one_more_refusal(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(capsys, tiny_bundle, "--provider", "NonesuchExecutionProvider", "--provider", CPU)
    assert len(found) == 8
    row = found["gate", "onnx-float32 NonesuchExecutionProvider"]
    assert row["verdict"] == "refused"
    assert "not in this onnxruntime" in row["reason"]
    found = rows(capsys, tiny_bundle, "--provider", "NonesuchExecutionProvider", code=1)
    assert {row["verdict"] for row in found.values()} == {"refused"}


def _no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _no_json(folder: Path) -> None:
    (folder / bundles.MANIFEST).write_text("no manifest")


def _flipped(folder: Path) -> None:
    path = folder / "golden.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [_no_folder, _no_json, _flipped])
def test_what_is_no_bundle_is_one_line_and_exit_2(
    spoiled: Spoiled, capsys: pytest.CaptureFixture[str], spoil: Any
) -> None:
    spoil(spoiled.folder)
    assert main(["bundle", "verify", str(spoiled.folder)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert str(spoiled.folder) in line


@pytest.mark.parametrize("words", [["--runs", "0"], ["--threads", "x"], []])
def test_wrong_arguments_are_exit_2(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bundle", "verify", *([str(tiny_bundle), *words] if words else [])])
    assert ended.value.code == 2
    capsys.readouterr()


def test_verify_refuses_what_the_agent_refuses_in_the_same_words(spoiled: Spoiled) -> None:
    spoiled.artifact("gate", 1, b"no network")
    bundle = reader.load(spoiled.folder)
    choice = choose(bundle, bundle.manifest.gate, precision="auto", threads=1)
    found = verify(bundle, threads=1, runs=1, providers=(CPU,))
    refused = {(r.artifact, r.reason) for r in found.rows if r.verdict == "refused"}
    assert refused == {(r.label, r.reason) for r in choice.refused}
    (chosen,) = [r for r in found.rows if (r.stage, r.verdict) == ("gate", "chosen")]
    assert chosen.artifact == choice.artifact.label
