"""The evaluation's report in a real browser, on a phone and on a desk, by day and at night."""

from pathlib import Path
from typing import Any

import pytest

from edge_agent.config.camera import SimulatedCamera
from edge_agent.simulation.dataset import write
from tests.support.chromium import DESK, PHONE, Browser, look
from tests.support.paths import ROOT
from training.__main__ import main

pytestmark = [pytest.mark.system, pytest.mark.slow]

REFERENCE = ROOT / "training" / "reference"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the reference models on a simulated strip, one file of it broken."""
    out = tmp_path_factory.mktemp("report")
    camera = SimulatedCamera(seed=9_900, width_px=1600, height_px=256, defects_per_m=8)
    assert list(write(camera, 1, 24, out / "data"))[-1] == 24
    broken = next((out / "data" / "images").iterdir())
    broken.write_bytes(broken.read_bytes()[:2000])
    models = [f"--{stage}={REFERENCE / stage}.keras" for stage in ("gate", "segmenter")]
    arguments = ["--data", str(out / "data"), *models, "--threshold", "0.999"]
    assert main(["evaluate", *arguments, "--out", str(out)]) == 0
    return out / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
def test_the_report_is_whole_and_fits_the_screen(
    browser: Browser, page: Path, tmp_path: Path, screen: dict[str, Any], scheme: str
) -> None:
    # The plots, and some of the gallery.
    assert look(browser, page, screen, scheme) >= 5 + 3 * 6
    browser.picture(tmp_path / f"{screen['width']}-{scheme}.png")


def test_the_dark_page_is_dark_and_takes_the_dark_plots(browser: Browser, page: Path) -> None:
    shown = []
    for scheme in ("light", "dark"):
        browser.show(page, PHONE, scheme)
        brightness = browser.tell(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        shown.append((sum(brightness), browser.tell("document.images[0].currentSrc")))
    assert shown[0][0] > 700
    assert shown[1][0] < 150
    assert shown[0][1] != shown[1][1]
