"""The five commands as they are typed: help, refusals, and what the small ones print and write."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from edge_agent import __main__ as edge_agent_main
from edge_agent.config.camera import SimulatedCamera
from edge_agent.messages.schema import schemas
from edge_agent.simulation.rolled_steel import CLASS_NAMES, strip_of
from tests.support.paths import ROOT

SUBCOMMANDS = {
    "edge-agent": (
        *("run", "check", "status", "bundle", "update", "camera", "watch", "tail", "spool"),
        *("simulate", "broker", "schema"),
    ),
    "edge-bench": ("latency", "accuracy", "networks", "delivery"),
    "edge-calibrate": (),
    "edge-export": ("convert", "keygen", "sign", "pack", "verify"),
    "edge-train": ("inspect", "split", "gate", "segmenter", "evaluate"),
}
EVERY_COMMAND = [
    words
    for tool, commands in SUBCOMMANDS.items()
    for words in ((tool,), *((tool, c) for c in commands))
] + [
    ("edge-agent", "bundle", "verify"),
    *(("edge-agent", "update", act) for act in ("stage", "status", "rollback")),
    *(("edge-agent", "spool", act) for act in ("status", "export", "replay")),
    *(("edge-agent", "camera", act) for act in ("list", "info", "grab", "watch", "test")),
]


def main_of(tool: str) -> Callable[[list[str]], int]:
    """The function that setup.cfg puts behind the command's name."""
    scripts = importlib.metadata.distribution("linegate").entry_points.select(
        group="console_scripts", name=tool
    )
    (script,) = scripts
    function: Callable[[list[str]], int] = script.load()
    return function


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`typed("edge-agent", "check", …)`: exit code, stdout, stderr."""

    def run(tool: str, *words: str) -> tuple[int, str, str]:
        try:
            code = main_of(tool)(list(words))
        except SystemExit as end:  # argparse ends by itself
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return code, out, err

    return run


Typed = Callable[..., tuple[int, str, str]]


# Help.


def test_every_command_that_is_installed_is_tested_here() -> None:
    scripts = importlib.metadata.distribution("linegate").entry_points
    assert {script.name for script in scripts} == set(SUBCOMMANDS)


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_help_shows_an_example(typed: Typed, words: tuple[str, ...]) -> None:
    code, out, err = typed(*words, "--help")
    assert (code, err) == (0, "")
    assert f"usage: {' '.join(words)} " in out
    _, _, examples = out.partition("example")
    assert examples, "no example"
    assert " ".join(words) in examples


@pytest.mark.parametrize("tool", SUBCOMMANDS)
def test_help_lists_the_subcommands_tested_here(typed: Typed, tool: str) -> None:
    _, out, _ = typed(tool, "--help")
    listed = re.search(r"\{([a-z,]+)\}\s+\.\.\.", out)
    assert (tuple(listed[1].split(",")) if listed else ()) == SUBCOMMANDS[tool]


@pytest.mark.parametrize("words", [w for w in EVERY_COMMAND if w[0] == "edge-agent"], ids=" ".join)
def test_examples_in_the_help_can_be_typed(words: tuple[str, ...]) -> None:
    """Each line that begins with the command's name is one the parser accepts."""
    parser = edge_agent_main._parser()
    text = parser.format_help()
    at = parser
    for word in words[1:]:
        at = next(a for a in at._actions if a.dest.endswith("command")).choices[word]  # type: ignore[index]
        text = at.format_help()
    text = text.partition("example")[2]
    typed_lines = re.findall(
        r"edge-agent "
        r"((?:run|check|status|bundle|update|camera|watch|tail|spool|simulate|broker|schema)\b.*)",
        text,
    )
    assert typed_lines
    for line in typed_lines:
        assert parser.parse_args(line.split()).command == line.split()[0]


@pytest.mark.parametrize("tool", SUBCOMMANDS)
def test_version(typed: Typed, tool: str) -> None:
    code, out, _ = typed(tool, "--version")
    assert (code, out) == (0, f"linegate {importlib.metadata.version('linegate')}\n")


# Refusals.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("edge-agent", "required: command"),
        ("edge-agent fly", "invalid choice: 'fly'"),
        ("edge-agent run", "required: --config"),
        ("edge-agent run --config x.toml --frames 0", "'0' is not a whole number above 0"),
        ("edge-agent run --config x.toml --frames many", "'many' is not a whole number above 0"),
        ("edge-agent run --config x.toml --fast", "unrecognized arguments: --fast"),
        ("edge-agent run --config no/such.toml", "no/such.toml: No such file"),
        ("edge-agent check --config no/such.toml", "no/such.toml: No such file"),
        ("edge-agent watch --broker somewhere", "mqtt.broker: 'somewhere' is not a broker"),
        ("edge-agent watch --root a/b", "mqtt.root"),
        ("edge-agent watch --count 0", "'0' is not a whole number above 0"),
        ("edge-agent watch --username x --password-file no/such", "no/such"),
        ("edge-agent tail", "required: --config"),
        ("edge-agent tail --config no/such.toml", "no/such.toml: No such file"),
        ("edge-agent spool", "required: spool_command"),
        ("edge-agent spool status --config no/such.toml", "no/such.toml: No such file"),
        ("edge-agent spool replay --config no/such.toml", "required: --state"),
        ("edge-agent simulate", "required: --out"),
        ("edge-agent simulate --out x --frames -1", "'-1' is not a whole number above 0"),
        ("edge-agent simulate --out x --seed -1", "camera.seed: -1 does not fit"),
        ("edge-agent simulate --out x --width-px 10", "camera.width_px: 10 does not fit"),
        ("edge-agent simulate --out setup.cfg/below", "--out: setup.cfg/below: "),
        ("edge-agent watch --record setup.cfg/below", "setup.cfg/below: Not a directory"),
        ("edge-agent broker --port x", "'x' is not a port"),
        ("edge-agent broker --port 0", "'0' is not a port"),
        ("edge-agent broker --port 70000", "'70000' is not a port"),
        ("edge-agent schema --out setup.cfg/below", "Not a directory; give a path"),
        ("edge-bench", "required: command"),
        ("edge-bench latency no/such/bundle", "no/such/bundle/bundle.json"),
        ("edge-bench latency bundle --samples 0", "--samples: 0 is too small"),
        ("edge-bench delivery --events 0", "--events: 0 is too small"),
        ("edge-bench accuracy no/such/bundle", "required: --simulated"),
        ("edge-bench accuracy no/such/bundle --simulated", "no/such/bundle/bundle.json"),
        ("edge-calibrate", "required: what"),
        ("edge-calibrate gate --bundle no/such/bundle", "no/such/bundle/bundle.json"),
        ("edge-calibrate gate --bundle x --miss-rate 1.5", "--miss-rate: 1.5"),
        ("edge-export", "required: command"),
        ("edge-export convert", "required: --gate"),
        ("edge-export keygen", "required: --out"),
        ("edge-export keygen --out setup.cfg/below", "--out: setup.cfg/below: Not a directory"),
        ("edge-export keygen --out setup.cfg", "--out: setup.cfg: is there already"),
        ("edge-export sign x", "required: --key"),
        ("edge-export sign x --key no/such", "--key: no/such: No such file"),
        ("edge-export sign x --key setup.cfg", "--key: setup.cfg: not an Ed25519 key"),
        ("edge-export verify x", "required: --trusted"),
        ("edge-export verify x --trusted no/such", "--trusted: no/such: No such file"),
        ("edge-export verify x --trusted setup.cfg", "setup.cfg: not an Ed25519 public key"),
        ("edge-train gate --data no/such --out run", "no/such: no such folder"),
        ("edge-train gate --data simulated --out run --set width=2", "is not section.key=value"),
        ("edge-train segmenter --data x --out run --config no/such.toml", "no/such.toml: No such"),
        ("edge-train split no/such --out s.csv", "no/such: no such folder"),
        ("edge-train inspect no/such", "no/such: no such folder"),
        ("edge-train evaluate --data no/such --out x", "--gate"),
        ("edge-train roof --data x --out run", "invalid choice: 'roof'"),
    ],
)
def test_bad_arguments_are_refused(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(ROOT)  # whose setup.cfg is no folder, even for root
    code, out, err = typed(*words.split())
    assert code == 2, err
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert err.count("\n") == 1 or err.startswith("usage: ")


@pytest.mark.system
@pytest.mark.parametrize(
    "module", ["edge_agent", "export", "calibration", "benchmarks", "training"]
)
def test_python_m_works_as_well(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: edge-")


# edge-agent check.


def test_check_says_what_would_run_and_why_the_rest_would_not(
    typed: Typed, config_file: Callable[..., Path]
) -> None:
    config = config_file("embedded", agent={"precision": "int8"})
    code, out, _ = typed("edge-agent", "check", "--config", str(config), "--json")
    assert code == 0
    report = json.loads(out)
    assert set(report) == {"gate", "segmenter"}
    for part in report.values():
        assert part["artifact"] == "onnx-int8"
        assert part["runtime"].startswith("onnxruntime ")
        assert part["run_ms"] > 0
        assert part["refused"] == {"onnx-float32": "agent.precision is int8"}

    code, out, _ = typed("edge-agent", "check", "--config", str(config))
    assert code == 0
    assert re.search(r"^gate: onnx-int8 on onnxruntime .*, [0-9.]+ ms$", out, re.MULTILINE)
    assert "  not onnx-float32: agent.precision is int8\n" in out


def test_check_takes_set(typed: Typed, config_file: Callable[..., Path]) -> None:
    words = ("--config", str(config_file("embedded")), "--set", "agent.precision=float32")
    code, out, _ = typed("edge-agent", "check", *words, "--json")
    assert code == 0
    assert json.loads(out)["gate"]["artifact"] == "onnx-float32"


def test_check_leaves_nothing_behind_and_needs_no_camera(
    tmp_path: Path, typed: Typed, config_file: Callable[..., Path]
) -> None:
    """It may be run beside a running agent: it takes neither its state nor its port."""
    config = config_file("embedded", camera={"path": "no/such/frames"})
    assert typed("edge-agent", "check", "--config", str(config), "--json")[0] == 0
    assert not (tmp_path / "state").exists()


def test_check_refuses_a_broken_bundle(
    tmp_path: Path, tiny_bundle: Path, typed: Typed, config_file: Callable[..., Path]
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / "golden.npz").write_bytes(b"")
    config = config_file("embedded", agent={"bundle": str(bundle)})
    code, out, err = typed("edge-agent", "check", "--config", str(config), "--json")
    assert (code, out) == (2, "")
    assert "golden.npz: sha256 is not the one in bundle.json" in err


# edge-agent schema.


def test_schema_writes_one_file_a_topic(tmp_path: Path, typed: Typed) -> None:
    out = tmp_path / "docs" / "schema"
    code, printed, _ = typed("edge-agent", "schema", "--out", str(out))
    assert (code, printed) == (0, "")
    written = {
        path.name.removesuffix(".schema.json"): json.loads(path.read_bytes())
        for path in out.iterdir()
    }
    assert written == schemas()
    for schema in written.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_schema_without_out_prints_them(typed: Typed) -> None:
    code, printed, _ = typed("edge-agent", "schema")
    assert code == 0
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(printed):
        schema, at = decoder.raw_decode(printed, at)
        found.append(schema)
        at += 1  # the line's end
    assert found == list(schemas().values())


def test_the_published_schemas_are_those_of_the_code(tmp_path: Path, typed: Typed) -> None:
    typed("edge-agent", "schema", "--out", str(tmp_path))
    published = {p.name: p.read_text() for p in (ROOT / "docs" / "schema").glob("*.json")}
    assert published == {p.name: p.read_text() for p in tmp_path.iterdir()}


# edge-agent simulate.


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def test_simulate_writes_images_masks_and_labels(tmp_path: Path, typed: Typed) -> None:
    out = tmp_path / "set"
    words = ["--seed", "3", "--frames", "6", "--width-px", "800", "--height-px", "200"]
    code, printed, _ = typed("edge-agent", "simulate", "--out", str(out), *words)
    assert (code, printed) == (0, f"6 frames: {out}\n")
    names = [f"seed3-frame{n:06}.png" for n in range(6)]
    assert sorted(p.name for p in (out / "images").iterdir()) == names
    assert sorted(p.name for p in (out / "masks").iterdir()) == names
    rows = rows_of(out)
    assert [row["file"] for row in rows] == names
    assert {row["class_id"] for row in rows} > {"0"}, "all the same: this seed shows nothing"
    strip = strip_of(SimulatedCamera(seed=3, width_px=800))
    for number, row in enumerate(rows):
        image = cv2.imread(str(out / "images" / row["file"]), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(out / "masks" / row["file"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, strip.render(200 * number, 200))
        np.testing.assert_array_equal(mask, strip.truth(200 * number, 200))
        counts = np.bincount(mask.ravel(), minlength=len(CLASS_NAMES) + 1)[1:]
        assert int(row["defect_pixels"]) == counts.sum()
        class_id = int(row["class_id"])
        assert class_id == (counts.argmax() + 1 if counts.any() else 0)
        assert row["class_name"] == (CLASS_NAMES[class_id - 1] if class_id else "Free")


@pytest.mark.parametrize(("strips", "frames", "each"), [(2, 4, [2, 2]), (3, 7, [3, 3, 1])])
def test_simulate_spreads_the_frames_over_strips(
    tmp_path: Path, typed: Typed, strips: int, frames: int, each: list[int]
) -> None:
    out = tmp_path / "set"
    words = f"--seed 5 --strips {strips} --frames {frames} --width-px 800 --height-px 64".split()
    code, printed, _ = typed("edge-agent", "simulate", "--out", str(out), *words, "--json")
    assert code == 0
    assert json.loads(printed) == {"frames": frames}
    names = [f"seed{5 + s}-frame{n:06}.png" for s, count in enumerate(each) for n in range(count)]
    assert [row["file"] for row in rows_of(out)] == names
    first = {name: (out / "images" / name).read_bytes() for name in names}
    assert len(set(first.values())) == frames, "every frame is another stretch of strip"


# edge-agent watch and broker, as processes.


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "edge_agent", *words],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for one in started:
        with one:
            one.kill()


@pytest.mark.system
def test_watch_prints_and_records_what_an_agent_says(
    tmp_path: Path,
    mosquitto: Any,
    subscriber: Callable[..., Any],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    process: Callable[..., subprocess.Popen[str]],
) -> None:
    record = tmp_path / "record.jsonl"
    heard = subscriber(mosquitto.port)
    words = ("watch", "--broker", mosquitto.url, "--count", "3")
    human = process(*words, "--record", str(record))
    machine = process(*words, "--json")
    for one in (human, machine):
        assert one.stderr is not None
        assert one.stderr.readline() == f"subscribed to linegate on {mosquitto.url}\n"
    assert agent(config_file(mosquitto.url)).ended().code == 0
    lines, noise = human.communicate(timeout=30)
    documents, _ = machine.communicate(timeout=30)
    assert (human.returncode, machine.returncode, noise) == (0, 0, "")
    payloads = [m.json() for m in heard.wait("event", 3)[:3]]
    assert [json.loads(line) for line in documents.splitlines()] == payloads
    assert [json.loads(line) for line in record.read_text().splitlines()] == payloads
    assert len(lines.splitlines()) == 3
    for line, payload in zip(lines.splitlines(), payloads, strict=True):
        assert f" agent frame {payload['data']['frame_id']}" in line
        assert payload["data"]["defects"][0]["class_name"] in line


@pytest.mark.system
def test_the_broker_ends_with_ctrl_c(
    free_port: int, process: Callable[..., subprocess.Popen[str]]
) -> None:
    broker = process("broker", "--port", str(free_port))
    assert broker.stderr is not None
    assert broker.stderr.readline() == f"broker on 127.0.0.1:{free_port}, Ctrl-C ends it\n"
    second = process("broker", "--port", str(free_port))
    _, said = second.communicate(timeout=30)
    assert second.returncode == 2
    assert f"mqtt.port: {free_port}: " in said
    assert said.count("\n") == 1
    broker.send_signal(signal.SIGINT)
    _, said = broker.communicate(timeout=30)
    assert (broker.returncode, said) == (0, "")
