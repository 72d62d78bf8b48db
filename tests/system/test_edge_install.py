"""The edge install: no extras, a fresh venv of each Python, and the agent inspects."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

PACKAGES = ("edge_agent", "export", "calibration", "benchmarks", "training", "workshop")
FILES = ("setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LAST_FOR_3_10 = {
    *("annotated-doc", "backports-strenum", "numpy", "onnxruntime", "pycparser", "typer"),
}
"""Packages whose newer versions refuse Python 3.10."""
ONLY_THERE = {
    "3.10": {"backports-asyncio-runner", "coloredlogs", "exceptiongroup", "humanfriendly", "tomli"}
}

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.long]


def _run(*command: str | Path, cwd: Path) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def _interpreter(python: str) -> Path:
    """Return an interpreter of the version, from the PATH or pyenv; skip the test without one."""
    if sys.version_info[:2] == tuple(int(part) for part in python.split(".")):
        return Path(sys.executable)
    found = [shutil.which(f"python{python}")]
    found += sorted(str(p) for p in Path.home().glob(f".pyenv/versions/{python}.*/bin/python"))
    for path in filter(None, found):
        # A name on the PATH can be a shim for a Python that is not there.
        program = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
        if done.stdout.strip() == python:
            return Path(path)
    pytest.skip(f"Python {python} is not installed on this machine")


@pytest.fixture(scope="module", params=PYTHONS)
def venv(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the distribution installed from a copy, so that no build folder stays here."""
    interpreter = _interpreter(request.param)
    folder = tmp_path_factory.mktemp(f"edge-{request.param}")
    source = folder / "source"
    source.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__", "*.keras")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    _run(interpreter, "-m", "venv", folder / "venv", cwd=folder)
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


def test_every_python_gets_the_same_versions(venv: Path) -> None:
    """Six packages are older on 3.10, as docs/line-engineer.md says."""
    program = (
        "import sys, importlib.metadata as m\n"
        "print('%d.%d' % sys.version_info[:2])\n"
        "for d in m.distributions(): print(d.name, d.version)"
    )
    python, *rows = _run(venv / "bin" / "python", "-c", program, cwd=venv).splitlines()
    installed = {str(canonicalize_name(n)): version for n, version in map(str.split, rows)}
    for tool in ("pip", "setuptools"):  # what `python -m venv` brings
        installed.pop(tool, None)
    pinned = _pins("3.11")
    different = {name for name, version in installed.items() if pinned.get(name) != version}
    if python == "3.10":
        different -= LAST_FOR_3_10
    assert different - ONLY_THERE.get(python, set()) == {"linegate"}


def _pins(python: str) -> dict[str, str]:
    """Return the versions of constraints.txt for one Python, by canonical name."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate({"python_version": python}):
                pins[str(canonicalize_name(pin.name))] = str(pin.specifier).removeprefix("==")
    return pins


def test_every_package_has_a_wheel_for_aarch64(venv: Path, tmp_path: Path) -> None:
    """By the pip of each Python: it evaluates the markers of versions for itself."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = []
    for line in setup["options"]["install_requires"].splitlines():
        if line and not line.startswith("#"):
            need = Requirement(line)
            # pip would evaluate this marker for the machine that it runs on.
            if "platform_machine" in str(need.marker or ""):
                assert need.marker is not None
                if not need.marker.evaluate({"platform_machine": "aarch64"}):
                    continue
                need.marker = None
            wanted.append(str(need))
    assert not any(line.startswith("viva-genicam") for line in wanted)
    platforms = [f"--platform=manylinux{glibc}_aarch64" for glibc in ("2014", "_2_27", "_2_28")]
    pip = (venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--dry-run")
    options = ("--only-binary=:all:", "--target", tmp_path, "-c", ROOT / "constraints.txt")
    _run(*pip, *options, *platforms, *wanted, cwd=tmp_path)
