"""Client certificates and passwords: from files, from systemd, and others while the agent runs."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config.config import MqttConfig
from edge_agent.delivery import credentials
from edge_agent.delivery.connection_events import Connected, Lost, Note, TcpConnected, Will
from edge_agent.delivery.mqtt_connection import Connection, check_files
from edge_agent.errors import ConfigError
from tests.support.paths import ROOT

WILL = Will("linegate/site/line/agent/state", b"offline")


@dataclass(frozen=True, slots=True)
class Identity:
    certificate: Path
    key: Path


@pytest.fixture
def identity(tmp_path: Path, certificates: Any) -> Callable[..., Identity]:
    """`identity(name, folder)`: a client certificate of our CA, and its key, under fixed names."""

    def make(name: str, folder: Path | None = None) -> Identity:
        folder = folder or tmp_path / "identity"
        folder.mkdir(exist_ok=True)
        found = Identity(folder / "client.pem", folder / "client.key")
        request, made = folder / "client.csr", folder / "client.new"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        for arguments in (
            ["req", *new, "-keyout", found.key, "-out", request, "-subj", f"/CN={name}"],
            [
                *("x509", "-req", "-in", request, "-CA", certificates.ca, "-days", "2"),
                *("-CAkey", certificates.ca.with_name("ca.key"), "-CAcreateserial", "-out", made),
            ],
        ):
            subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
        made.replace(found.certificate)
        return found

    return make


@pytest.fixture
def strict_broker(mosquitto_with: Callable[..., Any], certificates: Any) -> Any:
    """It takes who shows a certificate of our CA, and calls them by its name."""
    return mosquitto_with(
        f"cafile {certificates.ca}",
        f"certfile {certificates.certificate}",
        f"keyfile {certificates.key}",
        "require_certificate true",
        "use_identity_as_username true",
        scheme="mqtts",
    )


def first_note(config: MqttConfig) -> Note:
    notes: queue.SimpleQueue[Note] = queue.SimpleQueue()
    connection = Connection(config, "agent", WILL, notes.put, False)
    try:
        note = notes.get(timeout=30)
        return notes.get(timeout=30) if note == TcpConnected() else note
    finally:
        connection.close(5)


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_a_broker_that_asks_for_a_certificate_takes_ours_and_nobody_without(
    strict_broker: Any,
    certificates: Any,
    identity: Callable[..., Identity],
    mqtt_config: Callable[..., MqttConfig],
) -> None:
    ours = identity("press-7")
    keys = {"ca_file": str(certificates.ca)}
    assert isinstance(first_note(mqtt_config(strict_broker.url, **keys)), Lost)
    keys |= {"cert_file": str(ours.certificate), "key_file": str(ours.key)}
    config = mqtt_config(strict_broker.url, **keys)
    check_files(config)
    assert isinstance(first_note(config), Connected)
    assert "u'press-7'" in strict_broker.log
    # And so does who listens.
    words = ["watch", "--broker", strict_broker.url, "--ca-file", str(certificates.ca)]
    words += ["--cert-file", str(ours.certificate), "--key-file", str(ours.key)]
    with subprocess.Popen(
        [sys.executable, "-m", "edge_agent", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stderr is not None
        assert watch.stderr.readline().startswith("subscribed to linegate on ")
        watch.kill()


@pytest.mark.system
def test_new_certificates_are_taken_up_without_a_restart(
    strict_broker: Any,
    certificates: Any,
    identity: Callable[..., Identity],
    config_file: Callable[..., Path],
    agent: Callable[..., Any],
    eventually: Callable[..., Any],
) -> None:
    """Certificates run out; whoever puts new ones there has no terminal at the line."""
    ours = identity("old")
    config = config_file(
        strict_broker.url,
        camera={"kind": "simulated", "width_px": 800},
        mqtt={
            "ca_file": str(certificates.ca),
            "cert_file": str(ours.certificate),
            "key_file": str(ours.key),
        },
    )
    running = agent(config)
    eventually(lambda: "u'old'" in strict_broker.log, "a connection with the old certificate")
    # Half of a change: a key that does not fit yet. What was read goes on.
    fitting = ours.key.read_bytes()
    ours.key.write_bytes(fitting[:50])
    identity("new")
    eventually(lambda: "u'new'" in strict_broker.log, "a connection with the new certificate")
    running.terminate()
    ended = running.ended()
    assert ended.code == 0, ended.stderr
    assert "certificates or passwords have changed" in ended.stderr
    assert ended.summary["messages_pending"] == 0


def test_only_a_change_that_can_be_used_is_one(
    certificates: Any,
    identity: Callable[..., Identity],
    mqtt_config: Callable[..., MqttConfig],
    free_port: int,
) -> None:
    ours = identity("agent")
    config = mqtt_config(
        f"mqtts://127.0.0.1:{free_port}",
        ca_file=str(certificates.ca),
        cert_file=str(ours.certificate),
        key_file=str(ours.key),
    )
    connection = Connection(config, "agent", WILL, lambda note: None, False)
    assert not connection.stale()
    before = ours.key.read_bytes()
    ours.key.write_bytes(b"half a k")
    assert not connection.stale(), "it cannot be used"
    ours.key.unlink()
    assert not connection.stale()
    ours.key.write_bytes(before)
    assert connection.stale()
    connection.close()


def test_credentials_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mqtt_config: Callable[..., MqttConfig]
) -> None:
    """LoadCredential=mqtt-password:… in the unit, `credential:mqtt-password` in the config."""
    (tmp_path / "mqtt-password").write_text("open sesame\n", encoding="utf-8")
    (tmp_path / "mqtt-user").write_text("line", encoding="utf-8")
    config = mqtt_config(
        "mqtt://plant",
        username_file="credential:mqtt-user",
        password_file="credential:mqtt-password",
    )
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match=r"mqtt\.username_file: credential:mqtt-user: systemd"):
        check_files(config)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    check_files(config)
    assert credentials.username(config) == "line"
    assert credentials.password(config) == "open sesame"


@pytest.mark.parametrize("name", ["", ".", "..", "../secret", "a/b", "/etc/passwd"])
def test_a_credential_is_a_name_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given"))
    with pytest.raises(OSError, match="no name of a credential"):
        credentials.read_line(f"credential:{name}")


def test_what_cannot_work_is_refused_at_the_start(
    tmp_path: Path,
    certificates: Any,
    identity: Callable[..., Identity],
    mqtt_config: Callable[..., MqttConfig],
) -> None:
    ours = identity("agent")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", ours.key, "-out", locked, "-passout", "pass:x"],
        check=True,
        capture_output=True,
    )
    cert, key = str(ours.certificate), str(ours.key)
    for said, keys in (
        (r"mqtt\.key_file: .*: a key without mqtt\.cert_file", {"key_file": key}),
        (r"mqtt\.cert_file: no/such: No such file", {"cert_file": "no/such"}),
        (r"without a pass phrase", {"cert_file": cert, "key_file": str(locked)}),
        (r"PEM files", {"cert_file": cert, "key_file": str(certificates.key)}),
        (r"PEM files", {"ca_file": key}),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            check_files(mqtt_config("mqtts://plant", **keys))
        assert "\n" not in str(caught.value)


def test_a_password_file_is_small_and_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xff")
    with pytest.raises(OSError, match="UTF-8"):
        credentials.read_line(str(file))
    file.write_bytes(bytes(2 << 20))
    with pytest.raises(OSError, match="not a password"):
        credentials.read_line(str(file))
