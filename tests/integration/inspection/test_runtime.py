"""Real networks through the real libraries, and the choice between artifacts.

Two TFLite libraries in one process can crash it, so whatever could load the second one runs in a
process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

from edge_agent.bundle.golden import Golden
from edge_agent.bundle.manifest import GATE_INPUT, SEGMENTER_INPUT, Artifact, Bundle, Stage, Tiles
from edge_agent.bundle.reader import load
from edge_agent.errors import BundleError
from edge_agent.inspection.preprocess import prepare
from edge_agent.inspection.runtime import candidates, choose, open_runtime
from edge_agent.inspection.runtime.base import CPU
from edge_agent.inspection.runtime.onnx import OnnxRuntime
from edge_agent.inspection.runtime.self_test import golden_difference
from edge_agent.inspection.runtime.tflite import TfliteRuntime
from export.conversion import minimum_runtime
from tests.support.paths import ROOT

OTHER_CPU = "aarch64" if platform.machine() == "x86_64" else "x86_64"

Networks = tuple[Callable[..., bytes], Callable[..., bytes]]


class Bench:
    """The tiny bundle as a folder of one's own, with artifacts added to its gate."""

    def __init__(self, folder: Path) -> None:
        self.bundle = load(folder)
        self.good = self.bundle.manifest.gate.artifacts[0]

    def artifact(self, name: str, data: bytes, **changes: Any) -> Artifact:
        """The good artifact with other content; its golden outputs are the good one's."""
        (self.bundle.folder / name).write_bytes(data)
        outputs = self.bundle.golden.outputs
        outputs[name] = outputs[self.good.file.name]
        file = msgspec.structs.replace(self.good.file, name=name)
        return msgspec.structs.replace(self.good, file=file, **changes)

    def stage(self, *artifacts: Artifact) -> Stage:
        return Stage(input=GATE_INPUT, artifacts=artifacts)


@pytest.fixture
def bench(tmp_path: Path, tiny_bundle: Path) -> Bench:
    return Bench(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")))


def refusal(bundle: Bundle, stage: Stage) -> str:
    """The reason the first artifact is refused for, the last one being good."""
    choice = choose(bundle, stage, precision="auto", threads=1)
    assert choice.artifact == stage.artifacts[-1]
    (only,) = choice.refused
    assert only.label == stage.artifacts[0].label
    assert "\n" not in only.reason
    return only.reason


# choose.


def test_an_artifact_that_gives_its_golden_outputs_is_chosen(bench: Bench) -> None:
    for stage in (bench.bundle.manifest.gate, bench.bundle.manifest.segmenter):
        choice = choose(bench.bundle, stage, precision="auto", threads=1)
        assert choice.artifact in stage.artifacts
        assert choice.refused == ()
        assert choice.run_ms > 0
        assert choice.runtime.name == f"onnxruntime {onnxruntime.__version__}"


@pytest.mark.parametrize("slow_first", [True, False])
def test_of_several_the_fastest_is_chosen(
    bench: Bench, tiny_networks: Networks, slow_first: bool
) -> None:
    """The slow one does some forty times the work."""
    slow = bench.artifact("slow.onnx", tiny_networks[0](burden=40))
    artifacts = (slow, bench.good) if slow_first else (bench.good, slow)
    choice = choose(bench.bundle, bench.stage(*artifacts), precision="auto", threads=1)
    assert choice.artifact == bench.good
    assert choice.refused == ()


def test_wrong_outputs_are_refused(bench: Bench, tiny_networks: Networks) -> None:
    wrong = bench.artifact("wrong.onnx", tiny_networks[0](scale=41))
    reason = refusal(bench.bundle, bench.stage(wrong, bench.good))
    assert reason.startswith("differs from the golden outputs by ")
    assert reason.endswith(", 0.01 allowed")


def test_the_tolerance_is_the_artifacts_own(bench: Bench, tiny_networks: Networks) -> None:
    near = bench.artifact("near.onnx", tiny_networks[0](scale=41), golden_tolerance=2.0)
    choice = choose(bench.bundle, bench.stage(near), precision="auto", threads=1)
    assert choice.artifact == near


def test_one_wrong_golden_frame_of_several_is_enough(bench: Bench) -> None:
    expected = bench.bundle.golden.outputs[bench.good.file.name].copy()
    expected[-1] += 0.02
    assert len(expected) > 1
    bench.bundle.golden.outputs[bench.good.file.name] = expected
    with pytest.raises(BundleError, match=r"differs from the golden outputs by 0\.02"):
        choose(bench.bundle, bench.stage(bench.good), precision="auto", threads=1)


def test_a_wrong_segmenter_is_refused(bench: Bench, tiny_networks: Networks) -> None:
    good = bench.bundle.manifest.segmenter.artifacts[0]
    (bench.bundle.folder / good.file.name).write_bytes(tiny_networks[1](scale=80.0))
    stage = Stage(input=SEGMENTER_INPUT, artifacts=(good,))
    with pytest.raises(BundleError, match="differs from the golden outputs"):
        choose(bench.bundle, stage, precision="auto", threads=1)


@pytest.mark.parametrize("bright_at", [0, 1, 2])
def test_an_output_that_is_no_number_is_refused(
    bench: Bench, tiny_networks: Networks, bright_at: int
) -> None:
    """Wherever among the golden frames it comes: no comparison with NaN is true."""
    images = [np.full((256, 256), 100, np.uint8)] * 3
    images[bright_at] = np.full((256, 256), 250, np.uint8)
    outputs = {"nan.onnx": np.full(3, -4, np.float32), "good.onnx": np.full(3, -4, np.float32)}
    bundle = Bundle(bench.bundle.folder, bench.bundle.manifest, Golden(tuple(images), outputs), "")
    nan = bench.artifact("nan.onnx", tiny_networks[0](trap="nan"))
    good = bench.artifact("good.onnx", tiny_networks[0]())
    reason = refusal(bundle, bench.stage(nan, good))
    assert reason == "differs from the golden outputs by nan, 0.01 allowed"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: b"no network", id="text"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: data.replace(b"AveragePool", b"AveragePoll"), id="unknown-op"),
    ],
)
def test_bytes_that_cannot_be_loaded_are_refused(
    bench: Bench, spoil: Callable[[bytes], bytes]
) -> None:
    data = bench.bundle.path(bench.good).read_bytes()
    broken = bench.artifact("broken.onnx", spoil(data))
    assert refusal(bench.bundle, bench.stage(broken, bench.good)).startswith("does not run here: ")


def test_a_file_that_is_gone_is_refused(bench: Bench) -> None:
    gone = bench.artifact("gone.onnx", b"")
    (bench.bundle.folder / "gone.onnx").unlink()
    assert refusal(bench.bundle, bench.stage(gone, bench.good)).startswith("does not run here: ")


@pytest.mark.parametrize("key", ["input_name", "output_name"])
def test_a_name_the_network_does_not_have_is_refused(bench: Bench, key: str) -> None:
    data = bench.bundle.path(bench.good).read_bytes()
    other = bench.artifact("other.onnx", data, **{key: "nonesuch"})
    assert "nonesuch" in refusal(bench.bundle, bench.stage(other, bench.good))


def test_another_input_size_than_the_networks_is_refused(bench: Bench) -> None:
    small = msgspec.structs.replace(GATE_INPUT, height=128)
    stage = Stage(input=small, artifacts=(bench.good,))
    with pytest.raises(BundleError, match="does not run here"):
        choose(bench.bundle, stage, precision="auto", threads=1)


@pytest.mark.parametrize("left", [None, 0, 1])
def test_without_a_golden_output_for_each_golden_frame_nothing_is_proved(
    bench: Bench, left: int | None
) -> None:
    other = bench.artifact("other.onnx", bench.bundle.path(bench.good).read_bytes())
    if left is None:
        del bench.bundle.golden.outputs["other.onnx"]
    else:
        outputs = bench.bundle.golden.outputs
        outputs["other.onnx"] = outputs["other.onnx"][:left]
    reason = refusal(bench.bundle, bench.stage(other, bench.good))
    assert reason == "does not run here: no golden outputs for it in the bundle"


def test_an_artifact_for_another_cpu_is_refused(bench: Bench) -> None:
    data = bench.bundle.path(bench.good).read_bytes()
    other = bench.artifact("other.onnx", data, cpu_architecture=OTHER_CPU)
    assert refusal(bench.bundle, bench.stage(other, bench.good)) == f"made for {OTHER_CPU}"


def test_an_artifact_for_this_cpu_is_taken(bench: Bench) -> None:
    data = bench.bundle.path(bench.good).read_bytes()
    mine = bench.artifact("mine.onnx", data, cpu_architecture=platform.machine())
    assert choose(bench.bundle, bench.stage(mine), precision="auto", threads=1).artifact == mine


@pytest.mark.parametrize(
    ("precision", "label"),
    [
        ("float32", "onnx-float32"),
        ("int8", "onnx-int8"),
        ("onnx-float32", "onnx-float32"),
        ("onnx-int8", "onnx-int8"),
    ],
)
def test_precision_leaves_the_others_out(bench: Bench, precision: str, label: str) -> None:
    choice = choose(bench.bundle, bench.bundle.manifest.gate, precision=precision, threads=1)
    assert choice.artifact.label == label
    (other,) = choice.refused
    assert other.label != label
    assert other.reason == f"agent.precision is {precision}"


def test_when_none_is_left_each_reason_is_named(bench: Bench) -> None:
    stage = bench.stage(
        bench.artifact("broken.onnx", b"no network"),
        bench.artifact("other.onnx", b"", cpu_architecture=OTHER_CPU, precision="int8"),
    )
    with pytest.raises(BundleError) as caught:
        choose(bench.bundle, stage, precision="auto", threads=1)
    message = str(caught.value)
    assert message.startswith(f"{bench.bundle.folder}: no artifact can be used here (")
    assert "onnx-float32: does not run here: " in message
    assert f": made for {OTHER_CPU})" in message
    assert "\n" not in message


# choose, with tiles.


def _on_tiles(bench: Bench, networks: Networks, spoil: int | None = None) -> tuple[Bundle, Stage]:
    """Two golden frames of three tiles and one; with `spoil` that output is wrong."""
    spec = msgspec.structs.replace(
        GATE_INPUT, tiles=Tiles(height_px=256, width_px=256, overlap_px=0)
    )
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (256, width), dtype=np.uint8) for width in (700, 200)]
    network = onnxruntime.InferenceSession(networks[0](), providers=["CPUExecutionProvider"])
    pieces = [tile[None] for image in images for tile in prepare(image, spec)]
    outputs = np.array([network.run(None, {"image": x})[0][0, 0] for x in pieces], np.float32)
    assert outputs.shape == (4,)
    if spoil is not None:
        outputs[spoil] += 0.02
    golden = Golden(tuple(images), {bench.good.file.name: outputs})
    bundle = Bundle(bench.bundle.folder, bench.bundle.manifest, golden, "")
    return bundle, Stage(input=spec, artifacts=(bench.good,))


def test_golden_outputs_are_compared_tile_by_tile(bench: Bench, tiny_networks: Networks) -> None:
    bundle, stage = _on_tiles(bench, tiny_networks)
    choice = choose(bundle, stage, precision="auto", threads=1)
    assert golden_difference(bundle, stage, bench.good, choice.runtime) < 1e-4


@pytest.mark.parametrize("tile", [0, 1, 2, 3])
def test_one_wrong_tile_is_enough(bench: Bench, tiny_networks: Networks, tile: int) -> None:
    bundle, stage = _on_tiles(bench, tiny_networks, spoil=tile)
    with pytest.raises(BundleError, match=r"differs from the golden outputs by 0\.02"):
        choose(bundle, stage, precision="auto", threads=1)


def test_golden_outputs_of_frames_do_not_do_for_tiles(
    bench: Bench, tiny_networks: Networks
) -> None:
    bundle, stage = _on_tiles(bench, tiny_networks)
    bundle.golden.outputs[bench.good.file.name] = np.zeros(2, np.float32)
    with pytest.raises(BundleError, match="no golden outputs for it in the bundle"):
        choose(bundle, stage, precision="auto", threads=1)


# ONNX.


@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_runs_a_network(bench: Bench, threads: int) -> None:
    data = bench.bundle.path(bench.good).read_bytes()
    reference = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    runtime = open_runtime(bench.bundle, bench.good, threads)
    assert isinstance(runtime, OnnxRuntime)
    for image in bench.bundle.golden.images:
        batch = prepare(image, GATE_INPUT)
        got = runtime.run(batch)
        assert (got.dtype, got.shape) == (np.float32, (1, 1))
        np.testing.assert_allclose(got, reference.run(None, {"image": batch})[0], atol=1e-5)


def test_onnx_gives_a_wrong_input_back_as_an_error(bench: Bench) -> None:
    runtime = open_runtime(bench.bundle, bench.good, 1)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        runtime.run(np.zeros((1, 8, 8, 3), np.float32))


# Execution providers.

AZURE = "AzureExecutionProvider"


def test_every_onnx_artifact_is_tried_on_every_provider_once(bench: Bench) -> None:
    tflite = msgspec.structs.replace(bench.good, format="tflite")
    found = candidates(bench.stage(bench.good, tflite), ["CUDAExecutionProvider", CPU, CPU])
    assert [one.label for one in found] == [
        "onnx-float32 CUDAExecutionProvider",
        "onnx-float32",
        "tflite-float32",
    ]


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "NonesuchExecutionProvider"])
def test_a_provider_that_is_not_there_is_refused_and_the_cpu_taken(
    bench: Bench, provider: str
) -> None:
    """onnxruntime itself would only warn, and run it on the CPU under the other name."""
    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {provider}")
    stage = bench.stage(bench.good)
    choice = choose(bench.bundle, stage, precision="auto", threads=1, providers=(provider, CPU))
    assert choice.runtime.name == f"onnxruntime {onnxruntime.__version__}"
    (only,) = choice.refused
    assert only.label == f"onnx-float32 {provider}"
    assert only.reason.startswith("does not run here: not in this onnxruntime, which has ")


def test_a_provider_that_takes_no_part_of_the_network_is_refused(bench: Bench) -> None:
    """Azure's is compiled into the plain wheel, constructs, and leaves every node to the CPU."""
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime is built without {AZURE}")
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("below onnxruntime 1.24 there is no telling where the nodes are")
    with pytest.raises(BundleError, match="fell back to CPUExecutionProvider"):
        choose(
            bench.bundle,
            bench.stage(bench.good),
            precision="auto",
            threads=1,
            providers=(AZURE,),
        )


# OpenVINO.


def test_openvino_is_judged_like_the_rest(bench: Bench, tiny_networks: Networks) -> None:
    needs("openvino")
    wrong = bench.artifact("wrong.onnx", tiny_networks[0](scale=41))
    stage = bench.stage(wrong, bench.good)
    choice = choose(bench.bundle, stage, precision="auto", threads=1, providers=("openvino",))
    assert choice.artifact == bench.good
    assert choice.runtime.name == f"openvino {version('openvino')}"
    (only,) = choice.refused
    assert only.label == "onnx-float32 openvino"
    assert only.reason.startswith("differs from the golden outputs by ")
    segmenter = bench.bundle.manifest.segmenter
    choice = choose(bench.bundle, segmenter, precision="auto", threads=1, providers=("openvino",))
    assert choice.refused == ()


def test_openvino_keeps_what_it_gave(bench: Bench) -> None:
    """Its buffers are used again; what was handed out is not changed by the next run."""
    needs("openvino")
    runtime = open_runtime(bench.bundle, bench.good, 1, "openvino")
    one, other = (prepare(image, GATE_INPUT) for image in bench.bundle.golden.images[:2])
    first = runtime.run(one)
    kept = first.copy()
    assert not np.array_equal(runtime.run(other), kept)
    np.testing.assert_array_equal(first, kept)


def test_without_openvino_the_cpu_is_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "edge_agent.inspection.runtime.openvino", raising=False)
    stage, providers = bench.stage(bench.good), ("openvino", CPU)
    choice = choose(bench.bundle, stage, precision="auto", threads=1, providers=providers)
    assert choice.runtime.name.startswith("onnxruntime ")
    assert choice.refused[0].reason.startswith("does not run here: import of openvino")


# TFLite.

_CONVERT = """
import sys, tempfile
from pathlib import Path
import tensorflow as tf


class Net(tf.Module):
    # The order of the outputs is not the order here: only their names count.
    @tf.function(input_signature=[tf.TensorSpec((1, 256, 256, 3), tf.float32, name="image")])
    def serve(self, image):
        mean = tf.reshape(tf.reduce_mean(image), (1, 1))
        return {"another": tf.nn.avg_pool2d(image, 2, 2, "SAME"), "output": 8 * mean - 3}


net = Net()
with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(net, folder, signatures={"serving_default": net.serve})
    data = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
Path(sys.argv[1]).write_bytes(data)
"""

_RUN = """
import json, sys
from pathlib import Path
import numpy as np

path, batches, library = sys.argv[1:]
reached_out = []
OUT = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.posix_spawn")
sys.addaudithook(lambda event, _: event in OUT and reached_out.append(event))
try:
    if library == "openvino":
        from edge_agent.inspection.runtime.openvino import OpenvinoRuntime
        runtime = OpenvinoRuntime(Path(path), "image", "output", 2)
    elif path.endswith(".onnx"):
        from edge_agent.inspection.runtime.onnx import OnnxRuntime
        runtime = OnnxRuntime(Path(path), "image", "output", 2, library)
    else:
        from edge_agent.inspection.runtime.tflite import TfliteRuntime
        runtime = TfliteRuntime(Path(path), "image", "output", 2, library or None)
except RuntimeError as error:
    loaded = sorted({"ai_edge_litert", "tflite_runtime"} & set(sys.modules))
    print(json.dumps({"error": str(error), "loaded": loaded}))
else:
    outputs = [runtime.run(batch[None]) for batch in np.load(batches)]
    shapes = sorted({str((o.shape, o.dtype.name)) for o in outputs})
    values = [o.ravel().tolist() for o in outputs]
    again = [runtime.run(batch[None]).ravel().tolist() for batch in np.load(batches)]
    found = {"name": runtime.name, "shapes": shapes, "values": values, "again": again}
    print(json.dumps(found | {"reached_out": reached_out}))
"""


@pytest.fixture(scope="session")
def tflite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What TensorFlow's converter makes of a small network: 8 * mean - 3."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed, and its converter makes the file")
    path = tmp_path_factory.mktemp("tflite") / "tiny.tflite"
    subprocess.run([sys.executable, "-c", _CONVERT, str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batches") / "batches.npy"
    rng = np.random.default_rng(5)
    np.save(
        path, rng.random((3, 256, 256, 3), np.float32) * np.float32([[[[1]]], [[[0.2]]], [[[0]]]])
    )
    return path


def in_own_process(
    path: Path, batches: Path, library: str = "", python: str | Path = sys.executable
) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-c", _RUN, str(path), str(batches), library],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout))


def needs(library: str) -> None:
    module = library.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{library} is not installed for Python {platform.python_version()}")


def _python_with_tflite_runtime() -> Path:
    """It wants numpy 1, so it has an environment of its own."""
    python = minimum_runtime.interpreter()
    if python is None:
        pytest.skip("no environment beside this one has tflite-runtime: it was not run")
    return python


def _same_in_onnx(path: Path) -> Path:
    """The network of `tflite_file`, once more."""
    from onnx import TensorProto, helper

    shape = (1, 256, 256, 3)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2]),
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "column"], ["one"]),
            helper.make_node("Mul", ["one", "eight"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "three"], ["output"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("turned", TensorProto.FLOAT, (1, 3, 256, 256)),
            helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 1)),
        ],
        [
            helper.make_tensor("column", TensorProto.INT64, (2,), [1, 1]),
            helper.make_tensor("eight", TensorProto.FLOAT, (1,), [8]),
            helper.make_tensor("three", TensorProto.FLOAT, (1,), [3]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize(
    "library",
    [
        "ai-edge-litert",
        "CPUExecutionProvider",
        "CUDAExecutionProvider",
        "TensorrtExecutionProvider",
        "OpenVINOExecutionProvider",
        "openvino",
    ],
)
def test_every_runtime_runs_a_network_alike(
    request: pytest.FixtureRequest, tmp_path: Path, batches: Path, library: str
) -> None:
    """The contract: named with its version, float32 out, the right numbers, and again. Nothing is
    sent anywhere: some of these libraries come with telemetry."""
    if library.endswith("Provider"):
        if library not in onnxruntime.get_available_providers():
            pytest.skip(f"this onnxruntime is built without {library}: it was not run")
        path = _same_in_onnx(tmp_path / "tiny.onnx")
        name = f"onnxruntime {onnxruntime.__version__}"
        name += "" if library == CPU else f" {library}"
    elif library == "openvino":
        needs(library)
        path, name = _same_in_onnx(tmp_path / "tiny.onnx"), f"openvino {version(library)}"
    else:
        needs(library)
        path = request.getfixturevalue("tflite_file")
        name = f"{library} {version(library)}"
    found = in_own_process(path, batches, library)
    assert found["name"] == name
    assert found["shapes"] == ["((1, 1), 'float32')"]
    expected = [[8 * float(batch.mean(dtype=np.float64)) - 3] for batch in np.load(batches)]
    np.testing.assert_allclose(found["values"], expected, atol=1e-4)
    np.testing.assert_allclose(found["again"], found["values"], atol=1e-6)
    assert found["reached_out"] == []


@pytest.mark.parametrize("wish", ["", "tflite-runtime"])
def test_tflite_runtime_runs_a_network_where_its_extra_is_installed(
    tflite_file: Path, batches: Path, wish: str
) -> None:
    """Beside ai-edge-litert, which every installation has: the extra is the wish."""
    found = in_own_process(tflite_file, batches, wish, _python_with_tflite_runtime())
    assert found["name"] == "tflite-runtime 2.14.0"
    expected = [[8 * float(batch.mean(dtype=np.float64)) - 3] for batch in np.load(batches)]
    np.testing.assert_allclose(found["values"], expected, atol=1e-4)
    assert found["reached_out"] == []


def test_tflite_without_a_wish_takes_ai_edge_litert(tflite_file: Path, batches: Path) -> None:
    assert in_own_process(tflite_file, batches)["name"].startswith("ai-edge-litert ")


def test_tflite_runtime_left_behind_by_an_upgrade_to_numpy_2_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """There it imports, and dies when a network is opened."""
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", ModuleType("left behind"))
    with pytest.raises(RuntimeError, match=r"^tflite-runtime: needs numpy 1, this is 2"):
        TfliteRuntime(tmp_path / "tiny.tflite", "image", "output", 1, "tflite-runtime")
    with pytest.raises(RuntimeError, match=r"^ai-edge-litert: "):
        TfliteRuntime(tmp_path / "tiny.tflite", "image", "output", 1)


@pytest.mark.parametrize("data", [b"", b"no network", b"\x1c\x00\x00\x00TFL3" + bytes(100)])
def test_tflite_says_why_a_file_does_not_load_and_loads_no_second_library(
    tmp_path: Path, batches: Path, data: bytes
) -> None:
    """Two of them in one process with TensorFlow have crashed it."""
    path = tmp_path / "broken.tflite"
    path.write_bytes(data)
    found = in_own_process(path, batches)
    (loaded,) = found["loaded"]
    assert found["error"].startswith(f"{loaded.replace('_', '-')}: ")


def test_tflite_does_not_guess_at_an_unknown_library(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nonesuch: unknown library"):
        TfliteRuntime(tmp_path / "tiny.tflite", "image", "output", 1, "nonesuch")


def test_a_tflite_artifact_is_chosen_by_its_golden_outputs(bench: Bench, tflite_file: Path) -> None:
    """In this process only ai-edge-litert is loaded: the file is intact, so no other is tried."""
    needs("ai-edge-litert")
    tflite = bench.artifact("tiny.tflite", tflite_file.read_bytes(), format="tflite")
    assert refusal(bench.bundle, bench.stage(tflite, bench.good)).startswith("differs from")
    bench.bundle.golden.outputs["tiny.tflite"] = np.array(
        [8 * prepare(image, GATE_INPUT).mean() - 3 for image in bench.bundle.golden.images],
        np.float32,
    )
    choice = choose(bench.bundle, bench.stage(tflite), precision="auto", threads=1)
    assert choice.artifact.label == "tflite-float32"
    assert choice.runtime.name.startswith("ai-edge-litert ")
