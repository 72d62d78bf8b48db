"""edge-train gate and segmenter as a user calls them: run folders, resume, bad data, workers."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest

from edge_agent.bundle.manifest import GATE_INPUT
from edge_agent.inspection.preprocess import inputs
from export.conversion import onnx
from training.__main__ import main
from training.fit import checkpoint
from training.networks import networks
from workshop import model_card, splits
from workshop.datasets import open_dataset
from workshop.keras_models import freeze, load

Tiny = Callable[[str], Path]
_QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def _command(stage: str, data: Path | str, config: Path, out: Path, *more: str) -> list[str]:
    given = ["--data", str(data), "--config", str(config), "--out", str(out)]
    return [stage, *given, *more]


def _process(*arguments: str, env: dict[str, str] = _QUIET) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "training", *arguments],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["gate", "segmenter"])
def test_a_run_folder_holds_all_that_made_the_model(
    stage: str, drawn_set: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main([*_command(stage, drawn_set, tiny(""), out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    model = keras.saving.load_model(out / f"{stage}.keras")
    assert model.count_params() == figures["parameters"]
    assert getattr(model, "optimizer", None) is None  # neither optimizer nor loss travels with it
    begun = json.loads((out / "train.json").read_text())
    assert begun["identity"]["config"]["network"]["width"] == 0.0625
    assert set(begun["identity"]["data_sha256"]) == {"train", "validation"}
    assert begun["class_names"] == ["spot", "bar"]
    parts = splits.read(out / "split.csv")
    assert sorted([*parts.train, *parts.validation, *parts.test]) == [
        f"{k:03d}.png" for k in range(36)
    ]
    carried = model_card.read(out / f"{stage}.keras")
    dataset = open_dataset(drawn_set)
    at = {s.name: k for k, s in enumerate(dataset.samples)}
    chosen_on = {*parts.train, *parts.validation}
    assert carried is not None
    assert set(carried.seen) == {dataset.digest(at[name]) for name in chosen_on}
    assert (carried.stage, carried.class_names) == (stage, ("spot", "bar"))
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((out / "tensorboard").rglob("events.out.tfevents.*"))
    assert len(figures["history"]) == figures["epochs"] == 2
    # The model holds the best epoch's weights.
    best = checkpoint.read(out / "best.npz")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), best.network, strict=True))
    # A second run does not write over it.
    assert main(_command(stage, drawn_set, tiny(""), out)) == 2
    assert "holds a run; add --resume" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    ("stage", "head"), [("gate", "seed"), ("gate", "mapped"), ("segmenter", "seed")]
)
def test_resume_after_kill_9_ends_where_an_uninterrupted_run_does(
    stage: str, head: str, drawn_set: Path, tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny("[augment]\ncopy_paste = 0.3\n[balance]\nbalanced_sampling = true\n")
    config.write_text(config.read_text().replace("epochs = 2", "epochs = 5"))
    chosen = ("--set", f"network.head={head}")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = _process(*_command(stage, drawn_set, config, killed, *chosen))
    deadline = time.monotonic() + 240
    while not (killed / "last.npz").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = checkpoint.read(killed / "last.npz").progress.epochs
    assert 1 <= done < 5
    for out, more in ((killed, ["--resume"]), (whole, [])):
        process = _process(*_command(stage, drawn_set, config, out, *chosen, *more))
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    a, b = (keras.saving.load_model(out / f"{stage}.keras") for out in (whole, killed))
    assert all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))
    last = [checkpoint.read(out / "last.npz") for out in (whole, killed)]
    assert last[0].progress.history == last[1].progress.history
    assert last[0].progress.epochs == 5


@pytest.mark.slow
def test_resume_of_another_run_says_what_differs(
    drawn_set: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(_command("segmenter", drawn_set, tiny(""), out)) == 0
    again = _command("segmenter", drawn_set, tiny("learning_rate = 0.5\n"), out, "--resume")
    capsys.readouterr()
    assert main(again) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]  # after the progress of the split
    assert error.startswith("edge-train: --resume: ")
    assert "optimisation.learning_rate 0.001 (now 0.5)" in error


@pytest.mark.slow
@pytest.mark.parametrize("head", ["pooled", "mapped"])
def test_a_backbone_is_frozen_and_then_learns(
    head: str, drawn_set: Path, tiny: Tiny, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)  # of the body
    image = x = keras.Input((None, None, 3))
    for filters in (4, 6, 8, 10):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", activation="relu")(x)
    # Before a layer that learns, so that it must stay in inference by itself.
    norm = keras.layers.BatchNormalization()
    body = keras.Model(image, keras.layers.Conv2D(12, 1)(norm(x)))
    body.save(tmp_path / "body.keras")
    before = body.layers[1].get_weights()[0], body.layers[-1].get_weights()[0]
    for stage, learns in (("gate", False), ("segmenter", True)):
        more = f'[network]\nwidth = 0.0625\nfrozen_epochs = 1\nfine_tune_from = "{norm.name}"\n'
        # Enough that the second epoch, of the backbone too, is the better one.
        more += f"fine_tune_learning_rate = {0.003 if learns else 0}\n"
        config = tiny("")
        config.write_text(config.read_text().replace("[network]\nwidth = 0.0625\n", more))
        out = tmp_path / stage
        given = ["--backbone", str(tmp_path / "body.keras"), "--set", f"network.head={head}"]
        given += ["--set", "network.half_turn=true"]
        assert main([*_command(stage, drawn_set, config, out), *given]) == 0
        model = keras.saving.load_model(out / f"{stage}.keras")
        inner = next(layer for layer in model.layers if isinstance(layer, keras.Model))
        first, last = (inner.get_layer(body.layers[k].name).get_weights()[0] for k in (1, -1))
        assert np.array_equal(first, before[0])
        assert np.array_equal(last, before[1]) is not learns
        kept = inner.get_layer(norm.name).get_weights()
        assert all(np.array_equal(a, b) for a, b in zip(kept, norm.get_weights(), strict=True))
        read = model_card.read(out / f"{stage}.keras")
        assert read is not None
        assert (read.input.channels, read.input.scaling) == (3, "unit")
        if stage == "gate":  # its pools are standard over the training images
            dataset, names = open_dataset(drawn_set), splits.read(out / "split.csv").train
            seen = [i for i, s in enumerate(dataset.samples) if s.name in names]
            images = np.concatenate([next(inputs(dataset.image(i), read.input)) for i in seen])
            scales = [x for x in model.layers if x.name.startswith(networks.STANDARDISE)]
            assert len(scales) == (1 if head == "pooled" else 5)
            spread = []
            for scale in scales:
                both = keras.Model(model.input, [scale.input, scale.output])
                pools, scaled = (
                    np.asarray(x, np.float64).reshape(-1, x.shape[-1])
                    for x in both(images, training=False)
                )
                # What hardly varies is not blown up beyond a hundredfold.
                wanted = (pools - pools.mean(axis=0)) / np.sqrt(pools.var(axis=0) + 1e-4)
                assert np.allclose(scaled, wanted, atol=1e-2)
                spread.append(scaled.std(axis=0).max())
            assert max(spread) > 0.9
        tuned = model_card.read(out / "backbone.keras")
        assert tuned is not None
        assert (tuned.stage, tuned.seen) == ("backbone", read.seen)
        # And it goes straight into export, which takes the input from the card.
        exported = load.load(stage, out / f"{stage}.keras")
        assert exported.spec == read.input
        session = onnxruntime.InferenceSession(onnx.onnx_float32(exported))
        x = np.random.default_rng(0).uniform(size=(1, 128, 128, 3)).astype(np.float32)
        (got,) = session.run(None, {freeze.INPUT: x})
        assert np.allclose(got, model(x, training=False), atol=1e-4)


@pytest.mark.slow
def test_what_a_backbone_has_seen_its_heirs_have_seen(
    drawn_set: Path, tiny: Tiny, tmp_path: Path
) -> None:
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, 16, padding="same")(image)
    keras.Model(image, x).save(tmp_path / "body.keras")
    before = model_card.ModelCard(
        stage="backbone", input=GATE_INPUT, class_names=("spot",), seen=("0123456789abcdef",)
    )
    model_card.write(tmp_path / "body.keras", before)
    given = ["--backbone", str(tmp_path / "body.keras")]
    assert main([*_command("gate", drawn_set, tiny(""), tmp_path / "run"), *given]) == 0
    for name in ("gate", "backbone"):
        read = model_card.read(tmp_path / "run" / f"{name}.keras")
        assert read is not None
        assert "0123456789abcdef" in read.seen
        assert len(read.seen) > 20
    begun = json.loads((tmp_path / "run" / "train.json").read_text())
    digest = hashlib.sha256((tmp_path / "body.keras").read_bytes()).hexdigest()
    assert begun["identity"]["data_sha256"]["backbone"] == digest


@pytest.mark.slow
@pytest.mark.faults
def test_an_image_that_goes_missing_while_it_trains_ends_the_run_in_one_line(
    drawn_set: Path, tiny: Tiny, tmp_path: Path
) -> None:
    data, config, out = tmp_path / "data", tiny(""), tmp_path / "run"
    shutil.copytree(drawn_set, data)
    config.write_text(config.read_text().replace("epochs = 2", "epochs = 1000"))
    process = _process(*_command("gate", data, config, out))
    while not (out / "last.npz").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    for image in (data / "images").iterdir():
        image.unlink()
    _, errors = process.communicate(timeout=240)
    last = errors.strip().splitlines()[-1]
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert last.startswith("edge-train: ")
    assert ".png" in last
    assert "continue with --resume" in last


@pytest.mark.slow
def test_two_workers_train_one_model(
    drawn_set: Path, tiny: Tiny, tmp_path: Path, reserve_port: Callable[[], int]
) -> None:
    config = tiny("")
    workers = [f"127.0.0.1:{reserve_port()}" for _ in range(2)]
    running = []
    for index in range(2):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        env = {**_QUIET, "TF_CONFIG": json.dumps(cluster), "GRPC_VERBOSITY": "ERROR"}
        command = _command("segmenter", drawn_set, config, tmp_path / "run")
        running.append(_process(*command, "--strategy", "multiworker", env=env))
    ends = [process.communicate(timeout=280) for process in running]
    assert [process.returncode for process in running] == [0, 0], ends
    assert "worker 1: done" in ends[1][1]
    model = keras.saving.load_model(tmp_path / "run" / "segmenter.keras")
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert checkpoint.read(tmp_path / "run" / "last.npz").progress.epochs == 2


def test_multiworker_without_tf_config_is_refused(
    drawn_set: Path,
    tiny: Tiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    command = _command("gate", drawn_set, tiny(""), tmp_path / "run", "--strategy", "multiworker")
    assert main(command) == 2
    assert "TF_CONFIG is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_epoch(
    drawn_set: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, config = tmp_path / "run", tiny("")
    assert main(_command("gate", drawn_set, config, out)) == 0
    kept = checkpoint.read(out / "last.npz")
    # What a diverged step leaves behind: weights that are not numbers.
    poisoned = tuple(np.full_like(v, np.nan) if v.dtype == np.float32 else v for v in kept.network)
    progress = checkpoint.Progress(
        **{
            **{f: getattr(kept.progress, f) for f in kept.progress.__struct_fields__},
            "epochs": 1,
            "history": kept.progress.history[:1],
        }
    )
    checkpoint.write(out / "last.npz", checkpoint.Checkpoint(progress, poisoned, kept.optimizer))
    capsys.readouterr()
    assert main([*_command("gate", drawn_set, config, out), "--resume"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "epoch 2, step 1: the loss is not a number (images 0" in error
    assert "the checkpoint of epoch 1 is kept" in error
    assert checkpoint.read(out / "last.npz").progress.epochs == 1


def test_bad_data_and_settings_are_one_line(
    drawn_set: Path, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_defects = tmp_path / "no_defects.csv"
    names = [f"{k:03d}.png" for k in range(36)]
    parts = ["train" if k % 3 else "validation" for k in range(36)]
    no_defects.write_text(
        "file,part\n" + "".join(f"{n},{p}\n" for n, p in zip(names, parts, strict=True))
    )
    empty, wrong_size, beyond = (tmp_path / n for n in ("empty", "wrong_size", "beyond"))
    empty.mkdir()
    for folder in (wrong_size, beyond):
        shutil.copytree(drawn_set, folder)
    import cv2

    cv2.imwrite(str(wrong_size / "masks" / "001.png"), np.ones((5, 7), np.uint8))
    cv2.imwrite(str(beyond / "masks" / "001.png"), np.full((96, 120), 9, np.uint8))
    (tmp_path / "missing").mkdir()
    shutil.copytree(drawn_set, tmp_path / "missing", dirs_exist_ok=True)
    (tmp_path / "missing" / "images" / "004.png").unlink()
    listed = tmp_path / "split.csv"
    listed.write_text(
        "file,part\n"
        + "".join(f"{n},{'train' if k < 24 else 'validation'}\n" for k, n in enumerate(names))
    )
    config, out = str(tiny("")), str(tmp_path / "run")
    cases: list[tuple[list[str], str]] = [
        (["--data", str(empty)], "no data set"),
        (["--data", str(wrong_size), "--split", str(listed)], "001.png: 7x5 px, but the image"),
        (
            ["--data", str(beyond), "--set", 'data.class_names=["spot","bar"]'],
            "not in the list",
        ),
        (["--data", str(tmp_path / "missing")], "004.png"),
        (["--data", str(drawn_set), "--split", str(no_defects)], "a split with no defects"),
        (["--data", str(drawn_set), "--backbone", "no.keras"], "no such file"),
        (["--data", str(drawn_set), "--set", "input.height=100"], "multiples of 16"),
        (["--data", str(drawn_set), "--set", "optimisation.epoch=3"], "did you mean 'epochs'?"),
        (["--data", str(drawn_set), "--set", "network.width=0"], "network.width"),
        (["--data", str(drawn_set), "--set", "balance.class_weights=true"], "loss.per_class"),
        (["--data", str(drawn_set), "--set", "optimisation.keep=first"], "optimisation.keep"),
        (["--data", str(drawn_set), "--resume"], "no complete epoch; start"),
        (["--data", str(drawn_set), "--set", "data.fractions=[0.5,0.2,0.2]"], "add up to 1"),
    ]
    for more, expected in cases:
        assert main(["segmenter", "--config", config, "--out", out, *more]) == 2, more
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("edge-train: "), error
        assert expected in error
    turned = ["--data", str(drawn_set), "--set", "network.half_turn=true"]
    assert main(["gate", "--config", config, "--out", out, *turned]) == 2
    assert 'needs network.head "pooled" or "mapped"; set' in capsys.readouterr().err
    odd = ["--data", str(drawn_set), "--set", "network.head=mapped", "--set", "input.height=144"]
    assert main(["gate", "--config", config, "--out", out, *odd]) == 2
    assert "input: 144x" in (error := capsys.readouterr().err)
    assert "multiples of 32" in error
    assert not Path(out, "last.npz").exists()


@pytest.mark.slow
def test_the_simulator_is_a_data_set(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("[data]\nstrips = 2\nframes_per_strip = 12\n[balance]\nclean_ratio = 1.0\n")
    assert main(_command("segmenter", "simulated", config, tmp_path / "run")) == 0
    parts = splits.read(tmp_path / "run" / "split.csv")
    assert {name.split("-")[0] for name in parts.train} == {"seed1000", "seed1001"}
    assert {name.split("-")[0] for name in parts.validation} == {"seed2000"}
