"""The browser that the tests of report pages share."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chromium import DEADLINE_S, Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed (`make test` brings it)")
    folder = tmp_path_factory.mktemp("chromium")
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    with (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [*command, "about:blank"], stderr=err, env={**os.environ, "HOME": str(folder)}
        )
    try:
        one = Browser(_address(process, folder / "stderr"))
        yield one
        one.close()
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"DevTools listening on (ws://\S+)", log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    pytest.fail(f"chromium did not start: {log.read_text(errors='replace')}")
