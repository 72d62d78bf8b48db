"""One connection to the broker. With `watch`, the only file that imports paho.

paho is used as a pipe. A client lives for one connection and is never reused: its reconnection,
its queue and its memory of unacknowledged messages all have traps (docs/architecture.md). Its
callbacks only put a value into a queue, since an exception there would kill its network thread
while is_connected() stays true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from edge_agent.config import Mqtt
from edge_agent.errors import BrokerError, ConfigError

_CONNECT_TIMEOUT_S = 5.0
_UNSUPPORTED_PROTOCOL = 0x84


@dataclass(frozen=True, slots=True)
class Reached:
    """The host took our connection; the broker's answer is still to come."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted us."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection failed or ended; this client is of no more use."""

    reason: str
    wants_mqtt311: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker answered a publish; `refused` is the reason where it did not take it."""

    mid: int
    refused: str | None


Note = Reached | Connected | Lost | Acknowledged


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes


class Connection:
    """Connects in the background; everything that happens arrives through `tell`."""

    def __init__(
        self, config: Mqtt, client_id: str, will: Will, tell: Callable[[Note], None], mqtt311: bool
    ) -> None:
        """Raises BrokerError when the credentials or certificates cannot be read."""
        host, port, tls = address(config)
        client = self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv311 if mqtt311 else MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(config.window)
        client.will_set(will.topic, will.payload, qos=1, retain=True)
        try:
            if config.username:
                client.username_pw_set(config.username, password(config))
            if tls:
                client.tls_set(ca_certs=config.ca_file or None)
        except OSError as error:
            raise BrokerError(f"mqtt: {error.filename or 'TLS'}: {error.strerror}") from None

        def on_connect(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            if reason.is_failure:
                tell(Lost(f"refused: {reason}", reason.value == _UNSUPPORTED_PROTOCOL))
            else:
                tell(Connected())

        def on_publish(_c: Any, _u: Any, mid: int, reason: Any, _p: Any) -> None:
            tell(Acknowledged(mid, str(reason) if reason.is_failure else None))

        client.on_socket_open = lambda _c, _u, _s: tell(Reached())
        client.on_connect = on_connect
        client.on_publish = on_publish
        client.on_connect_fail = lambda _c, _u: tell(Lost(f"no connection to {host}:{port}"))
        client.on_disconnect = lambda _c, _u, _f, reason, _p: tell(Lost(str(reason)))
        client.connect_async(host, port, keepalive=config.keepalive_s)
        client.loop_start()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:
        """Send with QoS 1; the message id to wait for, or None when it could not be sent."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def close(self) -> None:
        """Disconnect; the broker then discards the last will."""
        self._client.disconnect()
        self._client.loop_stop()


def address(config: Mqtt) -> tuple[str, int, bool]:
    """Host, port, TLS of the broker; the embedded one is on loopback."""
    if config.broker == "embedded":
        return "127.0.0.1", config.port, False
    url = urlsplit(config.broker)
    tls = url.scheme == "mqtts"
    return url.hostname or "", url.port or (8883 if tls else 1883), tls


def check_files(config: Mqtt) -> None:
    """Refuse at the start what would fail at every connection. Raises ConfigError."""
    for key in ("password_file", "ca_file"):
        name = getattr(config, key)
        try:
            if name:
                Path(name).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"mqtt.{key}: {name}: {error.strerror}; give a file we can read"
            ) from None


def password(config: Mqtt) -> str | None:
    """From mqtt.password_file, so that it is in no config and no process list; OSError."""
    if not config.password_file:
        return None
    return Path(config.password_file).read_text(encoding="utf-8").rstrip("\n")
