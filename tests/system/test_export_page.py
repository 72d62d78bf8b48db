"""The export's report in a real browser, with flipped decisions and plots of layers in it."""

from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from export.__main__ import main
from tests.support.chromium import DESK, PHONE, Browser, look

pytestmark = [pytest.mark.system, pytest.mark.slow]


def _data(folder: Path) -> Path:
    """Grey noise, every other image with a bright spot."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(6)
    for index in range(32):
        image = rng.normal(100, 12, (128, 512)).clip(0, 255).astype(np.uint8)
        if index % 2:
            line, pixel = (int(i) for i in rng.integers(8, 90, 2))
            spot = np.s_[line : line + 24, pixel : pixel + 60]
            image[spot] = 240
            mask = np.zeros_like(image)
            mask[spot] = 1
            cv2.imwrite(str(folder / "masks" / f"{index:03d}.png"), mask)
        cv2.imwrite(str(folder / "images" / f"{index:03d}.png"), image)
    return folder


def _networks(folder: Path) -> list[str]:
    """Untrained: their int8 forms decide otherwise here and there."""
    keras.utils.set_random_seed(8)
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
    keras.Model(image, layers.Dense(1)(x)).save(folder / "gate.keras")
    image = keras.Input((64, 64, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    maps = layers.Conv2D(2, 1, activation="sigmoid")(x)
    keras.Model(image, maps).save(folder / "segmenter.keras")
    return [f"--{stage}={folder / stage}.keras" for stage in ("gate", "segmenter")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    words = [*_networks(folder), "--data", str(_data(folder / "data"))]
    words += ["--classes", "a class with a rather long name,and <b>another</b>"]
    words += ["--max-more-false-alarms", "100", "--max-dice-drop", "1"]
    assert main([*words, "--out", str(folder / "out")]) == 0
    return folder / "out" / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
def test_the_report_is_whole_and_fits_the_screen(
    browser: Browser, page: Path, tmp_path: Path, screen: dict[str, Any], scheme: str
) -> None:
    # A plot for each of four int8 forms, and pictures of at least one image.
    assert look(browser, page, screen, scheme) >= 4 + 2
    browser.picture(tmp_path / f"{screen['width']}-{scheme}.png")
