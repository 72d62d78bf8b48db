"""Real parts for the tests: a broker, a subscriber, a tiny bundle, frames, the agent as a process.

Nothing heavy is imported before a test asks for it.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import pytest

if TYPE_CHECKING:
    from edge_agent.config.config import MqttConfig

from tests.support.paths import ROOT

DATA = ROOT.parent / "shared" / "data"

_DEADLINE_S = 30.0
"""How long anything may take before a test calls it missing; no test depends on it being short."""

CLASS_NAMES = ("dark", "bright", "speck", "never")
INPUT, OUTPUT = "image", "output"


# What the fixtures that make things are, for the tests that annotate them.


class Eventually(Protocol):
    """Wait for the first true value of `condition()` and return it; fail the test after a while."""

    def __call__(self, condition: Callable[[], Any], what: str, deadline_s: float = ...) -> Any: ...


class MosquittoWith(Protocol):
    """Start a mosquitto with these lines of config; it ends with the test."""

    def __call__(self, *settings: str, scheme: str = ...) -> Mosquitto: ...


class StartMosquitto(Protocol):
    """Start a mosquitto that the caller kills."""

    def __call__(self, folder: Path, *settings: str) -> Mosquitto: ...


class Subscribe(Protocol):
    """Start a subscriber; it ends with the test."""

    def __call__(self, port: int, topic: str = ..., **login: str) -> Subscriber: ...


class MakeGate(Protocol):
    """Return the gate network as ONNX."""

    def __call__(self, scale: float = ..., *, trap: str = ..., burden: int = ...) -> bytes: ...


class MakeSegmenter(Protocol):
    """Return the segmenter network as ONNX."""

    def __call__(self, scale: float = ...) -> bytes: ...


class WriteBundle(Protocol):
    """Write a tiny bundle into `folder`; `gate` goes to `MakeGate`."""

    def __call__(self, folder: Path, *, version: int = ..., **gate: Any) -> Path: ...


class SignBundle(Protocol):
    """Sign the bundle in `folder`, whatever is in it."""

    def __call__(self, folder: Path, key: Path = ...) -> Path: ...


class ConfigFile(Protocol):
    """Write a TOML file for the agent; each section is merged over the defaults."""

    def __call__(self, broker: str, *, name: str = ..., **sections: dict[str, Any]) -> Path: ...


class StartAgent(Protocol):
    """Start the agent as a process; it is killed at the test's end if need be."""

    def __call__(self, config: Path, *arguments: str, **environment: str) -> AgentProcess: ...


class MakeMqttConfig(Protocol):
    """Return the [mqtt] section as the agent gets it."""

    def __call__(self, broker: str, **keys: Any) -> MqttConfig: ...


# Waiting.


def _eventually(condition: Callable[[], Any], what: str, deadline_s: float = _DEADLINE_S) -> Any:
    end = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            pytest.fail(f"not within {deadline_s:.0f} s: {what}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """`eventually(condition, what)`: the first true value of `condition()`, or the test fails."""
    return _eventually


_PORTS = range(20000, 32000)
"""Below the range that the kernel gives to outgoing connections: one of those could take a port
between two starts of a server."""

_reserved: list[int] = []


@pytest.fixture
def free_port() -> int:
    """Return a port of loopback that no other run of these tests takes before this one ends."""
    return _free_port()


@pytest.fixture(scope="session")
def reserve_port() -> Callable[[], int]:
    """Return a function that gives another free port at each call."""
    return _free_port


def _free_port() -> int:
    """Reserve a port by a name that one process alone can hold.

    A port that was bound and closed belongs to whoever binds it next. The name is a Unix socket
    without a file, which the kernel removes with the process.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0linegate-test-port-{port}")
            with socket.socket() as probe:  # a program that is no test may hold it
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        _reserved.append(name.detach())
        return port
    pytest.fail("no port is free")


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# The broker.


class Mosquitto:
    """A real mosquitto on its own port of loopback; sessions outlive `stop` and `start`."""

    def __init__(self, folder: Path, settings: Sequence[str], scheme: str = "mqtt") -> None:
        # An ordinary user's PATH leaves out where Debian puts it.
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
        program = shutil.which("mosquitto", path=path)
        if program is None:
            pytest.skip("mosquitto is not installed (`make test` brings it)")
        self._program = program
        self.port = _free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        folder.mkdir(parents=True)
        self._config, self._log = folder / "mosquitto.conf", folder / "mosquitto.log"
        lines = [
            f"listener {self.port} 127.0.0.1",
            # As root it would change to a user who may not read our folder.
            f"user {getpass.getuser()}",
            "persistence true",
            f"persistence_location {folder}/",
            "max_queued_messages 0",
            *settings,
        ]
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._config)], stdout=log, stderr=log
            )
        process = self._process
        _eventually(
            lambda: process.poll() is not None or _accepts(self.port), "mosquitto's listener"
        )
        if process.poll() is not None:
            pytest.fail(f"mosquitto did not start: {self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """In good order: sessions and retained messages are written first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It keeps its port and its connections, and does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_DEADLINE_S)
            self._process = None


@pytest.fixture
def mosquitto_with(tmp_path: Path) -> Iterator[MosquittoWith]:
    """`mosquitto_with(*settings, scheme=…)`: a running mosquitto with these lines of config."""
    running: list[Mosquitto] = []

    def start(*settings: str, scheme: str = "mqtt") -> Mosquitto:
        one = Mosquitto(tmp_path / f"mosquitto-{len(running)}", settings, scheme)
        running.append(one)
        one.start()
        return one

    yield start
    for one in running:
        one.kill()


@pytest.fixture(scope="session")
def start_mosquitto() -> StartMosquitto:
    """`start_mosquitto(folder, *settings)`: one that the caller kills."""

    def start(folder: Path, *settings: str) -> Mosquitto:
        one = Mosquitto(folder / "mosquitto", settings)
        one.start()
        return one

    return start


@pytest.fixture
def mosquitto(mosquitto_with: MosquittoWith) -> Mosquitto:
    """Open to all."""
    return mosquitto_with("allow_anonymous true")


@dataclass(frozen=True, slots=True)
class Guarded:
    """A broker that asks for a password, and who may come in."""

    broker: Mosquitto
    username: str
    password: str


@pytest.fixture
def mosquitto_password(tmp_path: Path, mosquitto_with: MosquittoWith) -> Guarded:
    file = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(file), "line", "open sesame"], check=True)
    # mosquitto_passwd leaves it readable by the owner only, who is us.
    broker = mosquitto_with("allow_anonymous false", f"password_file {file}")
    return Guarded(broker, "line", "open sesame")


@dataclass(frozen=True, slots=True)
class Certificates:
    ca: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA of our own, and what it signed for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    certificate, key, request = folder / "server.pem", folder / "server.key", folder / "server.csr"
    extensions = folder / "server.ext"
    extensions.write_text(
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
        encoding="utf-8",
    )
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    openssl(
        *("req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-days", "2"),
        *("-subj", "/CN=test CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=127.0.0.1")
    openssl(
        *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"),
        *("-out", certificate, "-days", "2", "-extfile", extensions),
    )
    return Certificates(ca, certificate, key)


@pytest.fixture
def mosquitto_tls(mosquitto_with: MosquittoWith, certificates: Certificates) -> Mosquitto:
    return mosquitto_with(
        "allow_anonymous true",
        f"certfile {certificates.certificate}",
        f"keyfile {certificates.key}",
        scheme="mqtts",
    )


# The subscriber.


@dataclass(frozen=True, slots=True)
class Received:
    topic: str
    payload: bytes
    retain: bool

    @property
    def kind(self) -> str:
        return self.topic.rpartition("/")[2]

    def json(self) -> Any:
        return json.loads(self.payload)


class Subscriber:
    """A plain paho client that keeps all it hears. Its session outlives a broker's restart."""

    def __init__(
        self, port: int, topic: str = "linegate/#", username: str = "", password: str = ""
    ) -> None:
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages: list[Received] = []
        self.subscriptions = 0
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"subscriber-{uuid.uuid4().hex}",
            clean_session=False,
        )
        if username:
            self._client.username_pw_set(username, password)

        def on_subscribe(*_: Any) -> None:
            self.subscriptions += 1

        self._client.on_connect = lambda c, *_: c.subscribe(topic, 1)
        self._client.on_subscribe = on_subscribe
        self._client.on_message = lambda _c, _u, m: self.messages.append(
            Received(m.topic, bytes(m.payload), m.retain)
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port, keepalive=60)
        self._client.loop_start()
        _eventually(lambda: self.subscriptions, "the subscriber's subscription")

    def of(self, *kinds: str) -> list[Received]:
        """What came on topics that end in one of `kinds`, in the order it came."""
        return [m for m in tuple(self.messages) if m.kind in kinds]

    def wait(self, kind: str, count: int = 1) -> list[Received]:
        """The messages of a kind, once there are `count`."""
        _eventually(lambda: len(self.of(kind)) >= count, f"{count} x {kind}")
        return self.of(kind)

    def numbered(self) -> list[dict[str, Any]]:
        """The `data` of events and gaps, as they came, duplicates included."""
        return [m.json()["data"] for m in self.of("event", "gap")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def subscriber() -> Iterator[Subscribe]:
    """`subscriber(port, topic="linegate/#")`: subscribed when it returns."""
    opened: list[Subscriber] = []

    def subscribe(port: int, topic: str = "linegate/#", **login: str) -> Subscriber:
        opened.append(Subscriber(port, topic, **login))
        return opened[-1]

    yield subscribe
    for one in opened:
        one.close()


# The bundle.


def _tiny_networks() -> tuple[MakeGate, MakeSegmenter]:
    from onnx import TensorProto, helper

    def model(nodes: list[Any], constants: dict[str, Any], shapes: tuple[Any, Any]) -> bytes:
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shapes[0])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shapes[1])],
            [
                helper.make_tensor(
                    name,
                    TensorProto.INT64 if value.dtype == np.int64 else TensorProto.FLOAT,
                    value.shape,
                    value.ravel().tolist(),
                )
                for name, value in constants.items()
            ],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        made.ir_version = 8
        return bytes(made.SerializeToString())

    node = helper.make_node
    same = {"kernel_shape": [31, 31], "auto_pad": "SAME_UPPER", "count_include_pad": 0}

    def gate(scale: float = 40.0, *, trap: str = "", burden: int = 0) -> bytes:
        """Logit = scale * largest deviation from the blurred image - 4.

        `trap`: what a frame brighter than 0.9 on average does: "raise", "nan" or "hang".
        `burden`: so many poolings more, for nothing but time.
        """
        nodes = [
            node("Transpose", [INPUT], ["b0"], perm=[0, 3, 1, 2]),
            node("AveragePool", ["b0"], ["blurred"], **same),
            node("Sub", ["b0", "blurred"], ["detail"]),
            node("Abs", ["detail"], ["size"]),
            node("ReduceMax", ["size"], ["most"], axes=[1, 2, 3], keepdims=0),
            node("Reshape", ["most", "one_by_one"], ["column"]),
            node("Mul", ["column", "scale"], ["scaled"]),
            node("Sub", ["scaled", "four"], ["logit"]),
            # What the frame lacks to a mean of 0.9; from it comes something that is 0 or a trap.
            node("ReduceMean", [INPUT], ["mean"], axes=[1, 2, 3], keepdims=0),
            node("Sub", ["limit", "mean"], ["margin"]),
        ]
        if trap == "raise":  # an index out of bounds
            nodes += [
                node("Less", ["margin", "zero"], ["bright"]),
                node("Cast", ["bright"], ["index"], to=TensorProto.INT64),
                node("Gather", ["zero", "index"], ["nothing"]),
            ]
        elif trap == "hang":  # a loop that outlives us all
            count_up = helper.make_graph(
                [node("Identity", ["go"], ["go_on"]), node("Identity", ["held"], ["hold"])],
                "count_up",
                [
                    helper.make_tensor_value_info("i", TensorProto.INT64, []),
                    helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                    helper.make_tensor_value_info("held", TensorProto.FLOAT, [1]),
                ],
                [
                    helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                    helper.make_tensor_value_info("hold", TensorProto.FLOAT, [1]),
                ],
            )
            nodes += [
                node("Less", ["margin", "zero"], ["bright"]),
                node("Cast", ["bright"], ["once"], to=TensorProto.INT64),
                node("Mul", ["once", "ages"], ["trips"]),
                node("Loop", ["trips", "", "zero"], ["nothing"], body=count_up),
            ]
        else:  # the root of a negative margin is no number, and 0 times that is none either
            nodes += [node("Sqrt" if trap == "nan" else "Abs", ["margin"], ["root"])]
            for i in range(burden):
                nodes.append(node("AveragePool", [f"b{i}"], [f"b{i + 1}"], **same))
            nodes += [
                node("ReduceMax", [f"b{burden}"], ["load"], keepdims=0),
                node("Mul", ["root", "load"], ["some"]),
                node("Mul", ["some", "zero"], ["nothing"]),
            ]
        nodes.append(node("Add", ["logit", "nothing"], [OUTPUT]))
        constants = {
            "one_by_one": np.array([1, 1], np.int64),
            "scale": np.array([scale], np.float32),
            "four": np.array([4], np.float32),
            "limit": np.array([0.9], np.float32),
            "zero": np.array([0], np.float32),
        }
        if trap == "hang":
            constants["ages"] = np.array([1 << 62], np.int64)
        return model(nodes, constants, ([1, 256, 256, 3], [1, 1]))

    def segmenter(scale: float = 8.0) -> bytes:
        """Per class sigmoid(weight * deviation from the blurred image - 9)."""
        nodes = [
            node("Reshape", [INPUT, "as_chw"], ["chw"]),
            node("AveragePool", ["chw"], ["blurred"], **same),
            node("Sub", ["chw", "blurred"], ["detail"]),
            node("Reshape", ["detail", "as_hwc"], ["pixels"]),
            node("Mul", ["pixels", "weights"], ["scaled"]),
            node("Sub", ["scaled", "bias"], ["logits"]),
            node("Sigmoid", ["logits"], [OUTPUT]),
        ]
        constants = {
            "as_chw": np.array([1, 1, 256, 256], np.int64),
            "as_hwc": np.array([1, 256, 256, 1], np.int64),
            "weights": np.array([-scale, scale, scale / 2, 0], np.float32),
            "bias": np.array([9, 9, 9, 9], np.float32),
        }
        return model(nodes, constants, ([1, 256, 256, 1], [1, 256, 256, len(CLASS_NAMES)]))

    return gate, segmenter


def _write_bundle(folder: Path, *, version: int = 1, **gate: Any) -> Path:
    """A bundle as edge-export packs it: two artifacts a stage, real golden outputs."""
    import onnxruntime

    from edge_agent.bundle.manifest import (
        GATE_INPUT,
        SEGMENTER_INPUT,
        Artifact,
        Manifest,
        RegionRule,
        Stage,
    )
    from edge_agent.bundle.reader import describe, encode_manifest
    from edge_agent.config.camera import SimulatedCamera
    from edge_agent.inspection.preprocess import prepare
    from edge_agent.simulation.rolled_steel import strip_of

    folder.mkdir(parents=True)
    make_gate, make_segmenter = _tiny_networks()
    strip = strip_of(SimulatedCamera(seed=99, width_px=800))
    images = [strip.render(256 * i, 256) for i in range(3)]
    arrays: dict[str, Any] = {f"image/{i:02d}": image for i, image in enumerate(images)}
    stages = {}
    for stage, spec, data, tolerance in (
        ("gate", GATE_INPUT, make_gate(**gate), 0.01),
        ("segmenter", SEGMENTER_INPUT, make_segmenter(), 0.002),
    ):
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        golden = np.stack(
            [session.run([OUTPUT], {INPUT: prepare(image, spec)})[0][0] for image in images]
        )
        artifacts = []
        for precision in ("float32", "int8"):
            # The same network under two labels: what a label says is the exporter's business.
            name = f"{stage}-{precision}.onnx"
            (folder / name).write_bytes(data)
            arrays[f"output/{name}"] = (
                golden[:, 0] if stage == "gate" else np.round(golden * 255).astype(np.uint8)
            )
            artifacts.append(
                Artifact(
                    file=describe(name, data),
                    format="onnx",
                    precision=precision,
                    cpu_architecture="any",
                    input_name=INPUT,
                    output_name=OUTPUT,
                    golden_tolerance=tolerance,
                    threshold_logit=-1.5 if stage == "gate" else None,
                )
            )
        stages[stage] = Stage(input=spec, artifacts=tuple(artifacts))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    (folder / "golden.npz").write_bytes(buffer.getvalue())
    manifest = Manifest(
        schema_version=1,
        name="tiny",
        version=version,
        class_names=CLASS_NAMES,
        gate=stages["gate"],
        segmenter=stages["segmenter"],
        regions=RegionRule(),
        golden=describe("golden.npz", buffer.getvalue()),
        tools={"onnxruntime": onnxruntime.__version__},
        provenance={},
    )
    (folder / "bundle.json").write_bytes(encode_manifest(manifest))
    return folder


@pytest.fixture(scope="session")
def write_bundle() -> WriteBundle:
    """`write_bundle(folder, version=1, **gate)`: a tiny bundle with the gate `tiny_networks` makes
    of that."""
    return _write_bundle


@pytest.fixture(scope="session")
def tiny_networks() -> tuple[MakeGate, MakeSegmenter]:
    """Makers of the two networks as ONNX: `gate(scale, …)` and `segmenter(scale)`."""
    return _tiny_networks()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle that takes milliseconds; read only, copy it to change it."""
    return _write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def key_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key as `edge-export keygen` writes it; its .pub lies beside it."""
    from export import signing_keys

    path = tmp_path_factory.mktemp("keys") / "line.key"
    signing_keys.generate(path)
    return path


@pytest.fixture(scope="session")
def sign_bundle(key_pair: Path) -> SignBundle:
    """`sign_bundle(folder, key=…)`: as `edge-export sign`, but it signs anything at all."""
    from edge_agent.bundle.signature import sign
    from export.signing_keys import read_private

    def sign_it(folder: Path, key: Path = key_pair) -> Path:
        raw = (folder / "bundle.json").read_bytes()
        (folder / "bundle.sig").write_bytes(sign(raw, read_private(key)))
        return folder

    return sign_it


# Frames.


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 frames of the simulated strip, 800x256 px, defective and clean."""
    from edge_agent.config.camera import SimulatedCamera
    from edge_agent.simulation.dataset import write

    out = tmp_path_factory.mktemp("frames")
    camera = SimulatedCamera(seed=7, width_px=800, height_px=256, defects_per_m=15, realtime=False)
    assert list(write(camera, 2, 24, out))[-1] == 24
    return out / "images"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images, which are not part of the repository."""
    if not DATA.is_dir():
        pytest.skip("the real data sets are not beside this repository")
    return DATA


# The agent.


@pytest.fixture
def config_file(tmp_path: Path, tiny_bundle: Path, frames: Path) -> ConfigFile:
    """`config_file(broker, **sections)`: a TOML file for the tiny bundle, with its own state_dir.

    Each section given as a dict is merged over the defaults; a key that is None is left out.
    """

    def write(broker: str, *, name: str = "line.toml", **sections: dict[str, Any]) -> Path:
        tree: dict[str, dict[str, Any]] = {
            "agent": {
                "bundle": str(tiny_bundle),
                "state_dir": str(tmp_path / "state"),
                "threads": 1,
                # Most tests are about what a bundle does; test_tampering.py is about whose it is.
                "unsigned_bundles": "allow",
            },
            "camera": {"kind": "folder", "path": str(frames)},
            "mqtt": {"broker": broker},
            "strip": {"pixel_width_mm": 0.25, "line_length_mm": 0.25},
        }
        for section, keys in sections.items():
            # A camera of another kind has other keys.
            replace = section == "camera" and "kind" in keys
            tree[section] = {**({} if replace else tree.get(section, {})), **keys}
        path = tmp_path / name
        # A TOML value that is a string, number or boolean is written as in JSON.
        path.write_text(
            "".join(
                f"[{section}]\n"
                + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items() if v is not None)
                for section, keys in tree.items()
            ),
            encoding="utf-8",
        )
        return path

    return write


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    stdout: str
    stderr: str
    summary: dict[str, Any] | None


class AgentProcess:
    """`python -m edge_agent run` on its own."""

    def __init__(
        self, folder: Path, config: Path, arguments: Sequence[str], environment: dict[str, str]
    ) -> None:
        folder.mkdir(parents=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        self._summary = folder / "summary.json"
        command = [sys.executable, "-m", "edge_agent", "run", "--config", str(config)]
        command += ["--summary", str(self._summary), *arguments]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=err, env={**os.environ, **environment}
            )

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(_DEADLINE_S)

    def terminate(self) -> None:
        self._process.terminate()

    def ended(self) -> Ended:
        """Wait for the end."""
        try:
            code = self._process.wait(2 * _DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the agent did not end: {self.stderr}")
        summary = self._summary
        return Ended(
            code,
            self._out.read_text(encoding="utf-8"),
            self.stderr,
            json.loads(summary.read_bytes()) if summary.exists() else None,
        )


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[StartAgent]:
    """`agent(config, *arguments, **environment)`: it runs; killed at the test's end if need be."""
    started: list[AgentProcess] = []

    def start(config: Path, *arguments: str, **environment: str) -> AgentProcess:
        folder = tmp_path / f"run-{len(started)}"
        started.append(AgentProcess(folder, config, arguments, environment))
        return started[-1]

    yield start
    for one in started:
        if one.running:
            one.kill()


@pytest.fixture(scope="session")
def check_schema() -> Callable[[str, Any], None]:
    """`check_schema("event", document)`: hold a document against the published JSON Schema."""
    import jsonschema

    from edge_agent.messages.schema import schemas

    validators = {}
    for kind, schema in schemas().items():
        jsonschema.Draft202012Validator.check_schema(schema)
        validators[kind] = jsonschema.Draft202012Validator(schema)

    def check(kind: str, document: Any) -> None:
        validators[kind].validate(document)
        # The schema's numbers do not say it: NaN and infinity are no JSON.
        json.dumps(document, allow_nan=False)

    return check


@pytest.fixture(scope="session")
def mqtt_config() -> MakeMqttConfig:
    """`mqtt_config(broker, **keys)`: the [mqtt] section as the agent gets it."""
    from edge_agent.config.config import MqttConfig

    def convert(broker: str, **keys: Any) -> MqttConfig:
        return msgspec.convert({"broker": broker, **keys}, MqttConfig)

    return convert
