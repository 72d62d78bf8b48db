"""A bundle as one file, made by another process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from export.__main__ import main as export
from tests.support.fixtures import SignBundle


def test_same_bundle_same_bytes(tiny_bundle: Path, sign_bundle: SignBundle, tmp_path: Path) -> None:
    folder = sign_bundle(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (folder / "report.html").write_text("for people")
    packed = tmp_path / "tiny.linegate"
    assert export(["pack", str(folder), "--out", str(packed)]) == 0
    # As other processes make it, from a copy of another time and with other modes.
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    (copy / "bundle.json").chmod(0o600)
    again = tmp_path / "again.linegate"
    command = [sys.executable, "-m", "export", "pack", str(copy), "--out", str(again)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == packed.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
