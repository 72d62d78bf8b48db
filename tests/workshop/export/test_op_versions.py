"""Operator versions read from real files, and the oldest runtimes, measured again where they are.

TensorFlow and tflite-runtime crash in one process, and want different numpy: each has an
environment of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge_agent.bundle.manifest import Format, OldestRuntime
from export import float_comparison
from export.conversion import minimum_runtime, op_versions
from workshop.errors import WorkshopError

_CONVERT = """
import sys, tempfile
from pathlib import Path
import tensorflow as tf

rng = tf.random.Generator.from_seed(1)
weights = tf.Variable(rng.normal((192, 64)), name="weights")
column = tf.Variable(rng.normal((64, 1)), name="column")


class Net(tf.Module):
    # Wide enough that the converter quantises the weights: it leaves small ones alone.
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32, name="image")])
    def serve(self, image):
        wide = tf.nn.relu(tf.matmul(tf.reshape(image, (1, 192)), weights))
        return {"output": tf.matmul(wide, column)}


net = Net()
net.weights, net.column = weights, column
with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(net, folder, signatures={"serving_default": net.serve})
    for name in ("float32", "dynamic"):
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if name == "dynamic":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        Path(sys.argv[1], f"{name}.tflite").write_bytes(converter.convert())


class Flex(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32, name="image")])
    def serve(self, image):
        return {"output": tf.reshape(tf.math.reduce_sum(tf.math.erf(image)), (1, 1))}


flex = Flex()
with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(flex, folder, signatures={"serving_default": flex.serve})
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    Path(sys.argv[1], "flex.tflite").write_bytes(converter.convert())
"""

# A file that only names one operator: constructing the interpreter looks for it.
_MEASURE = """
import json
import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from tflite_runtime.interpreter import Interpreter


def constructs(code, version):
    operator = schema.OperatorCodeT()
    operator.builtinCode, operator.version = code, version
    operator.deprecatedBuiltinCode = min(code, 127)
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], []
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [operator], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    try:
        Interpreter(model_content=bytes(builder.Output()))
    except (ValueError, RuntimeError):
        return False
    return True


found = {}
for name, code in vars(schema.BuiltinOperator).items():
    if isinstance(code, int):
        versions = [v for v in range(1, 21) if constructs(code, v)]
        if versions:
            found[name] = max(versions)
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What TensorFlow's converter makes of two small networks: float32, dynamic, flex."""
    folder = tmp_path_factory.mktemp("tflite")
    command = [sys.executable, "-c", _CONVERT, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _needs_tflite_runtime() -> Path:
    python = minimum_runtime.interpreter()
    if python is None:
        pytest.skip("no environment beside this one has tflite-runtime")
    return python


def test_tflite_operators_and_versions_are_read(files: Path) -> None:
    plain = op_versions.read("tflite", (files / "float32.tflite").read_bytes())
    dynamic = op_versions.read("tflite", (files / "dynamic.tflite").read_bytes())
    assert plain["FULLY_CONNECTED"] < 10 < dynamic["FULLY_CONNECTED"]
    assert list(dynamic) == sorted(dynamic)
    assert op_versions.missing("tflite", plain) == ""
    assert op_versions.missing("tflite", dynamic) == (
        f"FULLY_CONNECTED is version {dynamic['FULLY_CONNECTED']}, it has 10"
    )


def test_a_flex_operator_has_its_name_and_is_unknown_to_the_old_runtime(files: Path) -> None:
    found = op_versions.read("tflite", (files / "flex.tflite").read_bytes())
    assert found["custom FlexErf"] == 1
    assert "custom FlexErf is unknown to it" in op_versions.missing("tflite", found)


def _onnx(opset: int, ir_version: int) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))],
    )
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=sets, ir_version=ir_version)
    return bytes(made.SerializeToString())


def test_onnx_operator_sets_and_ir_version_are_read() -> None:
    found = op_versions.read("onnx", _onnx(17, 8))
    assert found == {"ai.onnx": 17, "com.microsoft": 1, "ir_version": 8}
    assert op_versions.missing("onnx", found) == ""


@pytest.mark.parametrize(
    ("opset", "ir_version", "lacks"),
    [
        (23, 11, ""),
        (24, 11, "ai.onnx is version 24, it has 23"),
        (23, 12, "ir_version is version 12, it has 11"),
        (24, 12, "ai.onnx is version 24, it has 23; ir_version is version 12, it has 11"),
    ],
)
def test_onnx_beyond_the_oldest_onnxruntime_is_named(
    opset: int, ir_version: int, lacks: str
) -> None:
    data = _onnx(opset, ir_version)
    assert op_versions.missing("onnx", op_versions.read("onnx", data)) == lacks
    # What the table lets through, the installed version takes too; 1.23 itself takes no more.
    if not lacks or onnxruntime.__version__.startswith("1.23."):
        try:
            onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
            taken = True
        except Exception:
            taken = False
        assert taken == (not lacks)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_what_is_no_network_is_a_value_error(kind: Format) -> None:
    with pytest.raises(ValueError, match=r"not an? (ONNX|TFLite) file"):
        op_versions.read(kind, b"\x08no network, whatever its name says")


def test_the_table_is_what_tflite_runtime_registers() -> None:
    """Every builtin operator in every version up to 20, on the wheel itself."""
    python = _needs_tflite_runtime()
    done = subprocess.run([python, "-c", _MEASURE], check=True, capture_output=True, text=True)
    registered = json.loads(done.stdout)
    assert len(registered) > 100
    for name, highest in registered.items():
        assert op_versions.missing("tflite", {name: highest}) == "", name
        assert op_versions.missing("tflite", {name: highest + 1}) != "", name
    for name in set(vars(op_versions.schema.BuiltinOperator)) - set(registered):
        assert op_versions.missing("tflite", {name: 1}) == f"{name} is unknown to it"


# Tried on the runtime itself.


def _check(path: Path, wanted: float | None = None) -> tuple[dict[str, int], OldestRuntime]:
    """As the export does; the golden outputs are the installed runtime's, or `wanted`."""
    from edge_agent.inspection.runtime.tflite import TfliteRuntime

    inputs = np.random.default_rng(2).random((3, 8, 8, 3), np.float32)
    if wanted is None:
        runtime = TfliteRuntime(path, "image", "output", 1)
        outputs = np.concatenate([runtime.run(one[None]) for one in inputs])
    else:
        outputs = np.full((3, 1), wanted, np.float32)
    return minimum_runtime.check("tflite", path, inputs, outputs, 0.01)


def test_what_the_old_runtime_runs_is_said_to_run_there(files: Path) -> None:
    _needs_tflite_runtime()
    versions, found = _check(files / "float32.tflite")
    assert found == OldestRuntime(name="tflite-runtime 2.14.0", refusal="", tried=True)
    assert versions["FULLY_CONNECTED"] >= 1


def test_dynamic_range_does_not_run_there_and_table_and_trial_agree(files: Path) -> None:
    _needs_tflite_runtime()
    versions, found = _check(files / "dynamic.tflite")
    assert found.tried
    assert found.refusal == op_versions.missing("tflite", versions) != ""


def test_other_numbers_than_the_golden_ones_are_a_refusal(files: Path) -> None:
    _needs_tflite_runtime()
    _, found = _check(files / "float32.tflite", wanted=1e6)
    assert found.tried
    assert found.refusal.startswith("differs from the golden outputs by ")


def test_where_the_table_sees_nothing_the_runtimes_own_words_are_kept(
    files: Path, tmp_path: Path
) -> None:
    """A file of good operators whose signature has another name."""
    _needs_tflite_runtime()
    whole = (files / "float32.tflite").read_bytes()
    other = tmp_path / "other.tflite"
    other.write_bytes(whole.replace(b"serving_default", b"serving_nowhere"))
    _, found = _check(other, wanted=0.0)
    assert found.tried
    assert found.refusal
    assert "\n" not in found.refusal


def test_onnx_is_compared_with_the_table(tmp_path: Path) -> None:
    path = tmp_path / "new.onnx"
    path.write_bytes(_onnx(24, 11))
    empty = np.zeros((0, 1), np.float32)
    versions, found = minimum_runtime.check("onnx", path, empty, empty, 0.01)
    assert versions["ai.onnx"] == 24
    if onnxruntime.__version__.startswith("1.23."):
        pytest.skip("here the installed onnxruntime is the oldest: it has run the artifact")
    assert (found.name, found.tried) == ("onnxruntime 1.23", False)
    assert found.refusal == "ai.onnx is version 24, it has 23"


def test_the_table_of_the_export_names_what_an_old_box_cannot_run() -> None:
    figures = (1000, 1.0, 1.5, 0.0, 0.0, 1.0, 4)
    rows = [
        float_comparison.ComparisonRow(
            "gate", "tflite-dynamic", *figures, "tflite-runtime 2.14.0", "too new", True
        ),
        float_comparison.ComparisonRow(
            "gate", "onnx-float32", *figures, "onnxruntime 1.23", "", False
        ),
    ]
    text = float_comparison.table(rows)
    assert text.splitlines()[1].endswith("  not tflite-runtime 2.14.0")
    assert text.splitlines()[2].endswith("  onnxruntime 1.23 (not tried)")
    assert text.splitlines()[-2:] == [
        "a box with tflite-runtime 2.14.0 cannot run gate tflite-dynamic: too new",
        "onnxruntime 1.23 was not tried: no environment here has it; only operators were compared",
    ]


def test_without_the_old_runtime_the_table_is_asked(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minimum_runtime, "interpreter", lambda: None)
    versions, found = _check(files / "dynamic.tflite")
    assert not found.tried
    assert found.refusal == op_versions.missing("tflite", versions) != ""


def test_the_old_runtime_is_looked_for_beside_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(minimum_runtime.INTERPRETER, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert minimum_runtime.interpreter.__wrapped__() is None
    python = tmp_path / minimum_runtime.BESIDE / "bin" / "python"
    python.parent.mkdir(parents=True)
    for version, found in (("2.14.0", python), ("2.13.0", None)):
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
        assert minimum_runtime.interpreter.__wrapped__() == found


@pytest.mark.parametrize("python", ["/nowhere/python", sys.executable])
def test_an_interpreter_named_in_vain_is_an_error(
    monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setenv(minimum_runtime.INTERPRETER, python)
    with pytest.raises(WorkshopError, match=r"PYTHON: .* has no linegate\[tflite-runtime\]: \S"):
        minimum_runtime.interpreter.__wrapped__()
