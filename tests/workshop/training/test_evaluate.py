"""edge-train evaluate from end to end: real Keras files, real images, what is told of them."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from edge_agent.bundle.manifest import Artifact, BundleFile, InputSpec, RegionRule, Tiles
from edge_agent.inspection import rle
from edge_agent.inspection.gate import Gate
from edge_agent.inspection.runtime import ChosenArtifact
from edge_agent.inspection.segmenter import Segmenter, class_map
from training.__main__ import main
from training.evaluate import submission
from training.evaluate.predict import TrainedNetwork, TrainedStages, load
from training.networks import networks
from workshop import model_card
from workshop.datasets import open_dataset
from workshop.model_card import ModelCard

SIDE = 48
NAMES = ("bright", "dark")
SPEC = InputSpec(height=SIDE, width=SIDE, channels=1, scaling="unit")


def seeing_gate() -> keras.Model:
    """Logit: 100 times how far the pixel furthest from 0.5 lies beyond 0.2; a sigmoid behind."""
    image = keras.Input((SIDE, SIDE, 1))
    far = layers.GlobalMaxPooling2D()(layers.Conv2D(2, 1, activation="relu")(image))
    model = keras.Model(image, layers.Dense(1, activation="sigmoid")(far))
    kernel = np.array([1, -1], np.float32).reshape(1, 1, 1, 2)
    ends = [np.array([[100], [100]], np.float32), np.array([-20], np.float32)]
    model.set_weights([kernel, np.array([-0.5, 0.5], np.float32), *ends])
    return model


def seeing_segmenter() -> keras.Model:
    """Bright beyond 0.7, dark below 0.3, pixel by pixel."""
    image = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(image, layers.Conv2D(2, 1, activation="sigmoid")(image))
    kernel = np.array([100, -100], np.float32).reshape(1, 1, 1, 2)
    model.set_weights([kernel, np.array([-70, 30], np.float32)])
    return model


def save(
    folder: Path, stage: str, model: keras.Model, seen: tuple[str, ...] | None = (), **spec: object
) -> Path:
    """With a card, unless `seen` is None."""
    path = folder / f"{stage}.keras"
    model.save(path)
    if seen is not None:
        height, width, channels = model.input_shape[1:]
        scaling = spec.pop("scaling", "unit")
        wanted = InputSpec(
            height=height,
            width=width,
            channels=channels,
            scaling=scaling,
            **spec,  # type: ignore[arg-type]
        )
        model_card.write(path, ModelCard(stage=stage, input=wanted, class_names=NAMES, seen=seen))  # type: ignore[arg-type]
    return path


# name, grey level and box drawn into the image, class, box in the mask
_IMAGES = {
    "bright.png": (255, (10, 10, 20, 20), 1, (10, 10, 20, 20)),  # found and right
    "dark.png": (0, (30, 5, 10, 16), 2, (30, 5, 10, 16)),
    "half.png": (255, (8, 8, 10, 20), 1, (8, 8, 20, 20)),  # half of what is drawn shows
    "wrong.png": (255, (5, 5, 20, 20), 2, (5, 5, 20, 20)),  # drawn as the other class
    "small.png": (255, (20, 20, 10, 10), 1, (20, 20, 10, 10)),  # 100 px: less than the rule's
    "hidden.png": (140, (5, 5, 20, 20), 1, (5, 5, 20, 20)),  # the gate sees nothing
    "undrawn.png": (255, (5, 5, 20, 20), 1, None),
    "alarm.png": (0, (5, 5, 20, 20), 0, None),  # clean, with an alarm
    "clean1.png": (128, (0, 0, 1, 1), 0, None),
    "clean2.png": (128, (0, 0, 1, 1), 0, None),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rows = ["file,class_name,class_id"]
    for number, (name, (level, box, class_id, drawn)) in enumerate(_IMAGES.items()):
        image = np.full((SIDE, SIDE), 128, np.uint8)
        image[-1, number] = 129  # no two are the same
        y, x, height, width = box
        image[y : y + height, x : x + width] = level
        cv2.imwrite(str(folder / "images" / name), image)
        if drawn is not None:
            y, x, height, width = drawn
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[y : y + height, x : x + width] = class_id
            cv2.imwrite(str(folder / "masks" / name), mask)
        rows.append(f"{name},{('Free', *NAMES)[class_id]},{class_id}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {
        "gate": save(tmp_path, "gate", seeing_gate()),
        "segmenter": save(tmp_path, "segmenter", seeing_segmenter()),
    }


@pytest.fixture
def evaluate(tmp_path: Path, data: Path, models: dict[str, Path]) -> Callable[..., int]:
    """`evaluate(*arguments, gate=, segmenter=)`: the exit code; None leaves a model out."""

    def run(*arguments: str, **given: Path | None) -> int:
        chosen = {**models, **given}
        files = [f"--{stage}={path}" for stage, path in chosen.items() if path is not None]
        return main(["evaluate", f"--data={data}", *files, f"--out={tmp_path / 'out'}", *arguments])

    return run


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], dict]:
    return lambda: json.loads((tmp_path / "out" / "evaluation.json").read_text())


def k_of_n(share: dict) -> tuple[int, int]:
    return share["k"], share["n"]


def test_figures_worked_by_hand(evaluate: Callable[..., int], told: Callable[[], dict]) -> None:
    assert evaluate("--threshold", "0.25") == 0
    e = told()
    assert e["images"] | {"data": ""} == {
        "data": "",
        "part": "unseen",
        "judged": 10,
        "clean": 3,
        "drawn": 6,
        "not_drawn": 1,
        "seen": 0,
        "left_out": 0,
        "problems": [],
    }
    assert e["notice"] == "All 10 images are new to the models."
    assert [at["threshold"] for at in e["gate"]["at"]] == [0.01, 0.25, 0.5]
    for at in e["gate"]["at"]:
        assert at["confusion"] == {
            "clean_stopped": 2,
            "clean_passed_on": 1,
            "defective_stopped": 1,
            "defective_passed_on": 6,
        }
    s = e["segmenter"]
    # Per drawn image: right, right, half, the wrong class, right (any size), nothing.
    half = 2 * 200 / (200 + 400)
    assert s["dice"]["value"] == pytest.approx((1 + 1 + half + 0 + 1 + 0) / 6)
    assert s["binary_dice"]["value"] == pytest.approx((1 + 1 + half + 1 + 1 + 0) / 6)
    assert k_of_n(s["matched"]) == (5, 6)
    assert k_of_n(s["class_right"]) == (4, 5)
    assert {c["name"]: c["dice"]["n"] for c in s["classes"]} == {"bright": 4, "dark": 2}
    # Class "dark": 160 right of 560 drawn, and 400 found on the clean image.
    bright, dark = (400 + 200 + 100) / (400 + 400 + 100 + 400 + 400), 160 / (560 + 400)
    assert s["mean_iou"]["value"] == pytest.approx((bright + dark) / 2)
    assert s["empty_dice"]["value"] == pytest.approx((6 * 0.5 + 3) / 9)
    assert [line["threshold"] for line in e["line"]] == [0.01, 0.25, 0.5, None]
    for line in e["line"]:
        assert k_of_n(line["recall"]) == (5, 7)  # small and hidden are missed
        assert k_of_n(line["false_alerts"]) == (1, 3)
        assert line["dice"]["value"] == pytest.approx((1 + 1 + half + 0 + 0 + 0) / 6)
        # right, right, half, wrong, missed, missed; alarm, clean, clean
        assert line["competition_dice"]["value"] == pytest.approx(
            (1 + 1 + (half + 1) / 2 + 0 + 0.5 + 0.5 + 0.5 + 1 + 1) / 9
        )
        assert k_of_n(line["matched"]) == (4, 6)
    assert [k_of_n(line["segmented"]) for line in e["line"]] == [(7, 10)] * 3 + [(10, 10)]


def test_a_smaller_least_area_alerts_on_the_small_one(
    evaluate: Callable[..., int], told: Callable[[], dict]
) -> None:
    assert evaluate("--min-area-px", "100") == 0
    assert k_of_n(told()["line"][0]["recall"]) == (6, 7)
    assert told()["regions"]["min_area_px"] == 100


def test_what_training_has_seen_is_left_out_or_said(
    evaluate: Callable[..., int],
    told: Callable[[], dict],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = open_dataset(data)
    digests = {s.name: dataset.digest(i) for i, s in enumerate(dataset.samples)}
    seen = (tmp_path / "seen").resolve()
    seen.mkdir()
    gate = save(seen, "gate", seeing_gate(), (digests["bright.png"], digests["clean1.png"]))
    segmenter = save(seen, "segmenter", seeing_segmenter(), (digests["clean1.png"],))
    assert evaluate(gate=gate, segmenter=segmenter) == 0
    assert (told()["images"]["judged"], told()["images"]["left_out"]) == (8, 2)
    assert told()["notice"] == "All 8 images are new to the models; 2 seen ones were left out."
    capsys.readouterr()
    assert evaluate("--part", "all", gate=gate, segmenter=segmenter) == 0
    assert (told()["images"]["judged"], told()["images"]["seen"]) == (10, 2)
    assert "2 of 10 images were used in training" in told()["notice"]
    assert capsys.readouterr().out.splitlines()[0] == told()["notice"]
    everything = save(seen, "segmenter", seeing_segmenter(), tuple(digests.values()))
    assert evaluate(gate=gate, segmenter=everything) == 2
    assert "--part unseen: all 10 images were used in training" in capsys.readouterr().err


def test_without_a_card_nobody_can_know(
    evaluate: Callable[..., int], told: Callable[[], dict], tmp_path: Path, models: dict[str, Path]
) -> None:
    (tmp_path / "bare").mkdir()
    # Without a card edge-export's defaults hold: a grey gate is not the seed's, but it fits.
    gate = save(tmp_path / "bare", "gate", seeing_gate(), None)
    assert evaluate(gate=gate) == 0
    assert told()["models"]["gate"]["knows_seen"] is False
    assert "no card in the gate." in told()["notice"]
    assert told()["images"]["judged"] == 10


def test_a_part_of_a_split(
    evaluate: Callable[..., int],
    told: Callable[[], dict],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed = tmp_path / "split.csv"
    listed.write_text("file,part\nalarm.png,test\nbright.png,test\nclean1.png,train\n")
    assert evaluate("--split", str(listed), "--part", "test") == 0
    assert (told()["images"]["judged"], told()["images"]["part"]) == (2, "test")
    assert evaluate("--split", str(listed), "--part", "validation") == 2
    assert "has no image in it" in capsys.readouterr().err
    assert evaluate("--part", "test") == 2
    assert "give --split FILE" in capsys.readouterr().err
    listed.write_text("file,part\nnobody.png,test\nclean1.png,train\n")
    assert evaluate("--split", str(listed), "--part", "test") == 2
    assert "'nobody.png' is not in the data" in capsys.readouterr().err


def test_a_broken_image_costs_itself_and_not_the_run(
    evaluate: Callable[..., int],
    told: Callable[[], dict],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = (data / "images" / "clean1.png").read_bytes()
    (data / "images" / "clean1.png").write_bytes(whole[:40])
    cv2.imwrite(str(data / "masks" / "bright.png"), np.ones((SIDE, SIDE + 1), np.uint8))
    assert evaluate() == 0
    problems = {p["name"]: p["reason"] for p in told()["images"]["problems"]}
    assert problems.keys() == {"bright.png", "clean1.png"}
    assert "49x48" in problems["bright.png"]
    assert told()["images"]["judged"] == 8
    assert "bright.png" in (tmp_path / "out" / "report.html").read_text()
    for image in (data / "images").iterdir():
        image.write_bytes(whole[:40])
    capsys.readouterr()
    assert evaluate() == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("edge-train: --data: none of 10 images could be evaluated; correct them")
    assert "the first is alarm.png: " in err


_GATE_PLOTS = {"roc.svg", "precision-and-recall.svg", "scores.svg", "overkill.svg"}


@pytest.mark.parametrize("stage", ["gate", "segmenter"])
def test_one_stage_alone(
    evaluate: Callable[..., int], told: Callable[[], dict], tmp_path: Path, stage: str
) -> None:
    left_out = "segmenter" if stage == "gate" else "gate"
    assert evaluate(**{left_out: None}) == 0
    e = told()
    assert e[left_out] is None
    assert e[stage] is not None
    assert e["models"].keys() == {stage}
    assert [line["threshold"] for line in e["line"]] == ([] if stage == "gate" else [None])
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    plots = {path.name for path in (tmp_path / "out").glob("*.svg")}
    assert plots == ({"dice-per-class.svg"} if stage == "segmenter" else _GATE_PLOTS)


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        ([], {"gate": None, "segmenter": None}, "--gate, --segmenter: both are missing"),
        (["--submission", "x.csv"], {"segmenter": None}, "--submission: needs a segmenter"),
        ([], {"gate": Path("none.keras")}, "--gate: none.keras: no such file"),
        (["--class-names", "a,b"], {}, "--class-names: a,b: the segmenter's card has bright,dark"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    evaluate: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    given: dict[str, Path | None],
    said: str,
) -> None:
    assert evaluate(*arguments, **given) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_segmenter_of_other_classes_is_refused(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare").mkdir()
    other = networks.segmenter(width=0.25, height_px=48, width_px=48, classes=3)
    segmenter = save(tmp_path / "bare", "segmenter", other, None)
    assert evaluate(segmenter=segmenter) == 2
    assert "3 maps, but the data has 2 classes (bright, dark)" in capsys.readouterr().err
    assert evaluate("--class-names", "bright,dark,never", segmenter=segmenter) == 0


def test_json_is_the_file_and_a_submission_is_what_the_line_finds(
    evaluate: Callable[..., int],
    told: Callable[[], dict],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "submission.csv"
    assert evaluate("--json", "--submission", str(path)) == 0
    assert json.loads(capsys.readouterr().out) == told()
    rows = submission.read(path)
    assert rows.keys() == _IMAGES.keys()
    found = {n: {k for k, text in of.items() if text} for n, of in rows.items()}
    assert {n for n, kinds in found.items() if kinds} == {
        *("bright.png", "dark.png", "half.png", "wrong.png", "undrawn.png", "alarm.png")
    }
    mask = rle.decode(rows["dark.png"][2], (SIDE, SIDE))
    assert mask[30:40, 5:21].all()
    assert mask.sum() == 160


def test_what_the_gate_stops_is_neither_found_nor_submitted(
    evaluate: Callable[..., int], told: Callable[[], dict], tmp_path: Path
) -> None:
    (tmp_path / "blind").mkdir()
    blind = seeing_gate()
    blind.set_weights([*blind.get_weights()[:3], np.array([-90], np.float32)])
    gate, path = save(tmp_path / "blind", "gate", blind), tmp_path / "submission.csv"
    assert evaluate("--submission", str(path), gate=gate) == 0
    assert {text for of in submission.read(path).values() for text in of.values()} == {""}
    line = told()["line"]
    assert [k_of_n(one["recall"]) for one in line] == [(0, 7), (0, 7), (5, 7)]
    assert [k_of_n(one["segmented"]) for one in line] == [(0, 10), (0, 10), (10, 10)]
    assert [one["dice"]["value"] for one in line[:2]] == [0, 0]
    assert line[0]["competition_dice"] == told()["segmenter"]["empty_dice"]


def choice(network: TrainedNetwork, threshold_logit: float | None) -> ChosenArtifact:
    artifact = Artifact(
        file=BundleFile(name="x.onnx", sha256="0" * 64, size_bytes=1),
        format="onnx",
        precision="float32",
        cpu_architecture="any",
        input_name="x",
        output_name="y",
        golden_tolerance=0.1,
        threshold_logit=threshold_logit,
    )
    return ChosenArtifact(artifact, network.source, 1.0, ())


_SMALL = {"height_px": 128, "width_px": 128}  # the least that the gate takes
_SMALLER = {"height_px": 64, "width_px": 64}


@pytest.fixture(scope="module")
def random_networks(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """The real architectures, small, with random weights: the gate for RGB, one class a map."""
    keras.utils.set_random_seed(1)
    gate = networks.gate(width=0.0625, **_SMALL)
    segmenter = networks.segmenter(width=0.25, classes=2, **_SMALLER)

    def write(tiles: tuple[Tiles | None, Tiles | None]) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("networks")
        return (
            save(folder, "gate", gate, tiles=tiles[0]),
            save(folder, "segmenter", segmenter, scaling="standardise", tiles=tiles[1]),
        )

    return write


_TILES = Tiles(height_px=100, width_px=100, overlap_px=20)
_WIDER = Tiles(height_px=100, width_px=150, overlap_px=20)


@pytest.mark.parametrize(
    "tiles", [(None, None), (_TILES, _TILES), (_TILES, None), (None, _TILES), (_TILES, _WIDER)]
)
def test_the_line_result_is_the_agents_own(
    random_networks: Callable[..., tuple[Path, Path]], tiles: tuple[Tiles | None, Tiles | None]
) -> None:
    paths = random_networks(tiles)
    gate, segmenter = load("gate", paths[0]), load("segmenter", paths[1])
    rule = RegionRule(min_probability=0.5, min_area_px=30)
    stages = TrainedStages(gate, segmenter, rule)
    image = np.random.default_rng(2).integers(0, 256, (180, 420), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 4)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    prediction = stages.predict(image)
    assert prediction.logits is not None
    assert prediction.score is not None
    # Thresholds between tiles, where rounding does not decide.
    logits = np.unique(prediction.logits)
    between = (logits[1:] + logits[:-1]) / 2
    levels = [float(logits[0]) - 1, *between[:1], *between[-1:], prediction.score + 1]
    results = []
    for level in levels:
        verdict = Gate(gate.spec, choice(gate, float(level))).judge(image)
        agent = Segmenter(segmenter.spec, choice(segmenter, None), rule)
        expected = agent.find(image, verdict.suspect_tiles) if verdict.suspect else ()
        assert verdict.score_logit == pytest.approx(prediction.score, abs=1e-4)
        results.append(stages.line(prediction, verdict.threshold_logit))
        assert results[-1] == expected
    assert results[0]
    assert not results[-1]
    if tiles == (_TILES, _TILES):
        assert results[1] != results[0]  # a tile less was segmented
    assert stages.regions(prediction) == results[0]


@pytest.mark.parametrize("tiles", [None, _TILES])
def test_pixels_are_regions_of_any_size(
    random_networks: Callable[..., tuple[Path, Path]], tiles: Tiles | None
) -> None:
    path = random_networks((None, tiles))[1]
    segmenter = load("segmenter", path)
    image = np.random.default_rng(3).integers(0, 256, (60, 150), np.uint8)
    prediction = TrainedStages(None, segmenter, RegionRule()).predict(
        cv2.GaussianBlur(image, (0, 0), 3)
    )
    assert prediction.maps is not None
    least = float(np.median(prediction.maps.max(axis=-1)))
    stages = TrainedStages(None, segmenter, RegionRule(min_probability=least, min_area_px=1))
    pixels = stages.pixels(prediction)
    assert 0 < np.count_nonzero(pixels) < pixels.size
    assert np.array_equal(pixels, class_map(stages.regions(prediction), prediction.shape))


def test_an_output_that_is_no_number_is_a_problem_of_the_image(
    evaluate: Callable[..., int],
    told: Callable[[], dict],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "odd").mkdir()
    odd = seeing_segmenter()
    # The darkest pixel of all, 0, times infinity.
    odd.set_weights([np.full((1, 1, 1, 2), np.inf, np.float32), np.zeros(2, np.float32)])
    assert evaluate(segmenter=save(tmp_path / "odd", "segmenter", odd)) == 0
    problems = told()["images"]["problems"]
    assert {p["name"] for p in problems} == {"dark.png", "alarm.png"}
    assert all("not finite" in p["reason"] for p in problems)
    worse = seeing_gate()
    worse.set_weights([*worse.get_weights()[:3], np.array([np.nan], np.float32)])
    assert evaluate(gate=save(tmp_path / "odd", "gate", worse)) == 1
    assert "alarm.png: gate.keras: the output is not finite" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_steel_images(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keras.utils.set_random_seed(1)
    gate = tmp_path / "gate.keras"
    segmenter = tmp_path / "segmenter.keras"
    networks.gate(width=0.0625, **_SMALL).save(gate)
    networks.segmenter(width=0.25, **_SMALLER).save(segmenter)
    data = shared_data / "severstal"
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--gate", str(gate), "--segmenter", str(segmenter)]
    assert main(["evaluate", *arguments, "--out", str(out), "--json"]) == 0
    e = json.loads(capsys.readouterr().out)
    assert [e["images"][k] for k in ("judged", "clean", "drawn")] == [17, 8, 9]
    # What an empty submission gets depends on train.csv alone.
    table = (data / "train.csv").read_text().splitlines()[1:]
    names = {p.name for p in (data / "train_images").iterdir()}
    drawn = [row for row in table if row.split(",")[0] in names and row.split(",")[2]]
    assert e["segmenter"]["empty_dice"]["value"] == pytest.approx(1 - len(drawn) / (17 * 4))
    assert e["line"][-1]["segmented"]["k"] == 17
