"""Operators and versions that a network needs, checked against the oldest supported runtime.

A current converter writes operator versions that a runtime of 2023 refuses. A registered version
does not prove that the network runs: `export.conversion.minimum_runtime` tries it where it can.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from ai_edge_litert import schema_py_generated as schema

from edge_agent.bundle.manifest import Format

OLDEST: Mapping[str, str] = {"tflite": "tflite-runtime 2.14.0", "onnx": "onnxruntime 1.23"}
"""Oldest runtime per format that `setup.cfg` permits on an edge box; TFLite's is an extra."""

IR_VERSION = "ir_version"
"""Key of the version of ONNX's file format among the operator sets."""

# Operators that tflite-runtime 2.14.0 registers, by highest version: measured on its wheel,
# operator by operator; a test repeats the measurement.
_TFLITE = {
    1: """
        ADD_N ASSIGN_VARIABLE ATAN2 BITCAST BITWISE_XOR BROADCAST_ARGS BUCKETIZE CALL_ONCE
        CEIL COMPLEX_ABS CONV_3D CONV_3D_TRANSPOSE COS CUMSUM DENSIFY DYNAMIC_UPDATE_SLICE
        ELU EMBEDDING_LOOKUP_SPARSE EXPAND_DIMS FLOOR HARD_SWISH HASHTABLE HASHTABLE_FIND
        HASHTABLE_IMPORT HASHTABLE_LOOKUP HASHTABLE_SIZE IF IMAG L2_POOL_2D
        LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LSH_PROJECTION
        MATRIX_DIAG MATRIX_SET_DIAG MULTINOMIAL NEG NON_MAX_SUPPRESSION_V4
        NON_MAX_SUPPRESSION_V5 ONE_HOT POW PRELU RANDOM_STANDARD_NORMAL RANDOM_UNIFORM RANK
        READ_VARIABLE REAL REDUCE_ALL REDUCE_ANY RELU_0_TO_1 RELU_N1_TO_1 RESHAPE
        REVERSE_SEQUENCE RFFT2D RIGHT_SHIFT ROUND SCATTER_ND SEGMENT_SUM SHAPE SIN SKIP_GRAM
        SQRT SQUARE UNIQUE UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD
        UNSORTED_SEGMENT_SUM VAR_HANDLE WHILE ZEROS_LIKE
    """,
    2: """
        DEPTH_TO_SPACE DIV EXP FAKE_QUANT FLOOR_MOD GELU GREATER L2_NORMALIZATION LEAKY_RELU
        LESS_EQUAL LOG_SOFTMAX RANGE REDUCE_PROD RSQRT SELECT_V2 SIGN SPACE_TO_DEPTH SPLIT_V
        SQUARED_DIFFERENCE SQUEEZE SUM WHERE
    """,
    3: """
        ARG_MAX ARG_MIN AVERAGE_POOL_2D BIDIRECTIONAL_SEQUENCE_LSTM
        BIDIRECTIONAL_SEQUENCE_RNN BROADCAST_TO EMBEDDING_LOOKUP FLOOR_DIV GREATER_EQUAL
        LESS LOGISTIC MAX_POOL_2D MEAN MIRROR_PAD NOT_EQUAL QUANTIZE REDUCE_MAX REDUCE_MIN
        RELU RELU6 REVERSE_V2 RNN SOFTMAX SPARSE_TO_DENSE TANH TILE TOPK_V2
        UNIDIRECTIONAL_SEQUENCE_RNN
    """,
    4: """
        BATCH_MATMUL BATCH_TO_SPACE_ND CONCATENATION EQUAL FILL GATHER_ND LSTM MAXIMUM
        MINIMUM PACK PAD PADV2 RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SELECT
        SPACE_TO_BATCH_ND SPLIT SVDF TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
    """,
    5: """
        ABS ADD CAST DEQUANTIZE SUB
    """,
    6: """
        GATHER SLICE TRANSPOSE
    """,
    7: """
        CONV_2D DEPTHWISE_CONV_2D MUL
    """,
    8: """
        STRIDED_SLICE
    """,
    10: """
        FULLY_CONNECTED
    """,
}
_HIGHEST_TFLITE = {op: version for version, ops in _TFLITE.items() for op in ops.split()}
# Limits of onnxruntime 1.23.2, measured in the same way. It does not check other domains.
_HIGHEST_ONNX = {IR_VERSION: 11, "ai.onnx": 23, "ai.onnx.ml": 5, "com.microsoft": 1}

_OP_NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}
_CUSTOM = "custom "


def read(format: Format, data: bytes) -> dict[str, int]:
    """Return the operator versions of a file, sorted by name.

    TFLite: the highest version of each operator, a custom or flex one as "custom NAME". ONNX: the
    operator set of each domain, and IR_VERSION. Raises ValueError for bytes that are not a network
    of this format.
    """
    return dict(sorted((_of_tflite(data) if format == "tflite" else _of_onnx(data)).items()))


def missing(format: Format, versions: Mapping[str, int]) -> str:
    """Return text on the entries of `versions` that the oldest runtime lacks, or ""."""
    words = []
    for name, version in versions.items():
        highest = _HIGHEST_TFLITE.get(name) if format == "tflite" else _HIGHEST_ONNX.get(name)
        if highest is not None and version > highest:
            words.append(f"{name} is version {version}, it has {highest}")
        elif highest is None and format == "tflite":
            words.append(f"{name} is unknown to it")
    return "; ".join(words)


def _of_tflite(data: bytes) -> dict[str, int]:
    if not schema.Model.ModelBufferHasIdentifier(data, 0):
        raise ValueError("not a TFLite file")
    model = schema.Model.GetRootAs(data, 0)
    versions: dict[str, int] = {}
    for index in range(model.OperatorCodesLength()):
        one = model.OperatorCodes(index)
        # Codes above 127 have a field of their own; the older field then holds 127.
        code = max(one.BuiltinCode(), one.DeprecatedBuiltinCode())
        name = _OP_NAMES.get(code, f"operator {code}")
        if code == schema.BuiltinOperator.CUSTOM:
            name = _CUSTOM + one.CustomCode().decode(errors="replace")
        versions[name] = max(one.Version(), versions.get(name, 0))
    return versions


def _of_onnx(data: bytes) -> dict[str, int]:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf has exceptions of its own
        raise ValueError(f"not an ONNX file: {error}") from None
    versions = {one.domain or "ai.onnx": int(one.version) for one in model.opset_import}
    return versions | {IR_VERSION: int(model.ir_version)}
