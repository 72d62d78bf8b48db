"""Training at the seed's size: full-width networks, and a set far larger than the memory."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from edge_agent.inspection import rle
from edge_agent.simulation.rolled_steel import SteelStrip
from export.conversion import onnx
from training.networks import networks
from training.networks.losses import FocalTversky
from workshop import splits
from workshop.keras_models import freeze, load

IMAGES, DRAWN = 10_000, 40
LIMIT_BYTES = 6 << 30
# The most memory the child ever held. Not ru_maxrss: that begins with the parent's.
_MEASURED = """
import sys
from pathlib import Path
from training.__main__ import main
code = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in lines if line.startswith("VmHWM:")))
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["gate", "segmenter"])
def test_full_width_networks_train_save_load_and_export(stage: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    if stage == "gate":
        model, parameters, channels = networks.gate(), 25_685_377, 3
        model.compile(keras.optimizers.Nadam(1e-3), keras.losses.BinaryCrossentropy(True))
        target = np.array([[0], [1]], np.float32)
    else:
        model, parameters, channels = networks.segmenter(), 1_210_276, 1
        model.compile(keras.optimizers.Nadam(1e-3), FocalTversky())
        target = (rng.uniform(size=(2, 256, 256, 4)) > 0.9).astype(np.float32)
    assert model.count_params() == parameters
    images = rng.uniform(size=(2, 256, 256, channels)).astype(np.float32)
    before = [w.copy() for w in model.get_weights()]
    assert np.isfinite(model.train_on_batch(images, target))
    assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    model.save(tmp_path / f"{stage}.keras")
    loaded = load.load(stage, tmp_path / f"{stage}.keras")
    wanted = model(images[:1], training=False).numpy()
    assert np.allclose(loaded.run(images[:1]), wanted, atol=1e-4)
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx.onnx_float32(loaded))
    (got,) = session.run(None, {freeze.INPUT: images[:1]})
    assert np.allclose(got, wanted, atol=1e-3)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_training_on_10000_frames_stays_under_6_gb(tmp_path: Path) -> None:
    frames = tmp_path / "data" / "train_images"
    frames.mkdir(parents=True)
    names = []
    with (tmp_path / "data" / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ImageId", "ClassId", "EncodedPixels"])
        strip = SteelStrip(1_500)
        for k in range(DRAWN):
            truth = strip.truth(k * 256, 256)
            original = frames / f"{k:05d}.jpg"
            cv2.imwrite(str(original), strip.render(k * 256, 256))
            copies = [original.name]
            for c in range(1, IMAGES // DRAWN):
                copies.append(f"{c * DRAWN + k:05d}.jpg")
                os.link(original, frames / copies[-1])
            names += copies
            for class_id in np.unique(truth[truth > 0]).tolist():
                runs = rle.encode(truth == class_id)
                table.writerows([[name, class_id, runs] for name in copies])
    assert len(names) == IMAGES == len(list(frames.iterdir()))
    names.sort()
    parts = splits.Split(tuple(names[:8_000]), tuple(names[8_000:9_000]), tuple(names[9_000:]))
    splits.write(tmp_path / "split.csv", parts)
    # Half a pass over the training images: what is kept of them is kept from the start.
    settings = [
        "--set=input.height=128",
        "--set=input.width=128",
        "--set=network.width=0.0625",
        "--set=optimisation.epochs=1",
        "--set=optimisation.batch=32",
        "--set=balance.clean_ratio=0.2",
    ]
    given = ["--data", str(tmp_path / "data"), "--split", str(tmp_path / "split.csv")]
    out = ["--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, "gate", *given, *out, *settings],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures, peak = done.stdout.strip().splitlines()
    assert json.loads(figures)["epochs"] == 1
    assert int(peak.split()[1]) * 1024 < LIMIT_BYTES
