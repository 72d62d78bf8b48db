"""The edge install: no extras, a fresh venv, and the agent inspects."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("edge_agent", "export", "calibration", "benchmarks", "training", "workshop")
FILES = ("setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.long]


def _run(*command: str | Path, cwd: Path) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the distribution installed from a copy, so that no build folder stays here."""
    folder = tmp_path_factory.mktemp("edge")
    source = folder / "source"
    source.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__", "*.keras")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    _run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    pip = (folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet")
    _run(*pip, "-c", "constraints.txt", ".", cwd=source)
    return folder / "venv"


def test_no_workshop_tools_are_installed(venv: Path) -> None:
    program = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    names = set(_run(venv / "bin" / "python", "-c", program, cwd=venv).lower().split())
    assert {"linegate", "numpy", "opencv-python", "onnxruntime", "paho-mqtt"} <= names
    assert "ai-edge-litert" in names
    assert "tflite-runtime" not in names
    for unwanted in ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "matplotlib", "scipy"):
        assert unwanted not in names
    # Extras, for who has a frame grabber.
    assert not names & {"harvesters", "genicam"}


def test_gige_cameras_are_looked_for_and_a_missing_extra_is_one_line(
    venv: Path, tmp_path: Path
) -> None:
    agent = venv / "bin" / "edge-agent"
    assert isinstance(json.loads(_run(agent, "camera", "list", "--json", cwd=tmp_path)), list)
    words = [str(agent), *("camera", "info", "--kind", "gentl", "--cti", "grabber.cti")]
    refused = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr == (
        "edge-agent: camera.kind: gentl: the packages harvesters and genicam are not installed; "
        "install linegate[gentl]\n"
    )


def test_bundle_verify_needs_no_more_than_the_edge_install(
    venv: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    agent = venv / "bin" / "edge-agent"
    words = ("bundle", "verify", tiny_bundle, "--runs", "3", "--json")
    found = json.loads(_run(agent, *words, cwd=tmp_path))
    assert found["fit"]
    assert sorted(row["verdict"] for row in found["rows"]) == ["chosen", "chosen", "works", "works"]


def test_the_agent_inspects_a_folder_with_a_signed_bundle(
    venv: Path, tiny_bundle: Path, free_port: int, tmp_path: Path
) -> None:
    agent, export = venv / "bin" / "edge-agent", venv / "bin" / "edge-export"
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    _run(export, "keygen", "--out", "line.key", cwd=tmp_path)
    _run(export, "sign", "bundle", "--key", "line.key", cwd=tmp_path)
    _run(export, "verify", "bundle", "--trusted", "line.key.pub", cwd=tmp_path)
    _run(agent, "simulate", "--frames", "8", "--out", tmp_path / "frames", cwd=tmp_path)
    (tmp_path / "line.toml").write_text(
        f'[agent]\nbundle = "{bundle}"\nstate_dir = "{tmp_path / "state"}"\n'
        'trusted_keys = ["line.key.pub"]\n'
        '[camera]\nkind = "folder"\npath = "frames/images"\n'
        f'[mqtt]\nbroker = "embedded"\nport = {free_port}\n'
    )
    _run(agent, "run", "--config", "line.toml", "--summary", "run.json", cwd=tmp_path)
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["frames_inspected"] == summary["frames_captured"] == 8
    assert summary["events_published"] == summary["frames_defective"]
