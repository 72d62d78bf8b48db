"""One connection to the broker. With `watch`, the only file that imports paho.

paho is used as a pipe. A client lives for one connection and is never reused: its reconnection,
its queue and its memory of unacknowledged messages all have traps (docs/internals.md). Its
callbacks only put a value into a queue, since an exception there would kill its network thread
while is_connected() stays true; and should that thread end for any other reason, that is told.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.config.config import MqttConfig
from edge_agent.delivery import credentials
from edge_agent.delivery.connection_events import (
    Acknowledged,
    Connected,
    Incoming,
    Lost,
    Note,
    NotSubscribed,
    TcpConnected,
    Will,
)
from edge_agent.errors import BrokerError, ConfigError

_CONNECT_TIMEOUT_S = 5.0
_CLOSE_S = 1.0
_UNSUPPORTED_PROTOCOL = 0x84
_MAX_INCOMING_BYTES = 256 << 10
"""What a broker of MQTT 5 may send us; of 3.1.1, what we pass on."""


class _Client(mqtt.Client):
    """Says so when paho's thread ends by an exception: paho itself would not."""

    died: Callable[[Exception], None]

    def loop_forever(
        self, timeout: float = 1.0, retry_first_connection: bool = False
    ) -> MQTTErrorCode:
        """In paho's thread. A client is for one connection, whatever paho asks for."""
        try:
            return super().loop_forever(timeout, retry_first_connection=False)
        except Exception as error:
            self.died(error)
            return MQTTErrorCode.MQTT_ERR_UNKNOWN


class Connection:
    """Connects in the background; everything that happens arrives through `tell`."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Will,
        tell: Callable[[Note], None],
        mqtt311: bool,
        subscriptions: Sequence[str] = (),
    ) -> None:
        """Raises BrokerError when the credentials or certificates cannot be read."""
        self._config, self._mqtt5 = config, not mqtt311
        self._read = credentials.fingerprint(config)
        host, port, tls = address(config)
        client = self._client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv311 if mqtt311 else MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(config.window + 50)  # the window is kept by who sends
        client.will_set(will.topic, will.payload, qos=1, retain=True)
        try:
            name = credentials.username(config)
            if name:
                client.username_pw_set(name, credentials.password(config))
            if tls:
                client.tls_set_context(credentials.tls_context(config))
        except OSError as error:
            where = error.filename or "TLS certificates"
            raise BrokerError(f"mqtt: {where}: {error.strerror or error}") from None
        _Callbacks(tell, subscriptions, f"{host}:{port}").attach(client)
        properties = None
        if not mqtt311:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = 2 * _MAX_INCOMING_BYTES
        client.connect_async(host, port, keepalive=config.keepalive_s, properties=properties)
        client.loop_start()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation_data: bytes | None = None,
    ) -> int | None:
        """Send with QoS 1; the message id to wait for, or None when it could not be sent."""
        properties = None
        if correlation_data is not None and self._mqtt5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation_data
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def close(self, flush_s: float = 0.0) -> None:
        """End it, at once or when what was published is sent, at most `flush_s` seconds later.

        Only a connection that ends in order makes the broker discard the last will. paho's thread
        may hang in a name server or a dead socket; it is never waited for longer.
        """
        self._client.disconnect()
        ending = threading.Thread(target=self._client.loop_stop, name="mqtt-end", daemon=True)
        ending.start()
        ending.join(flush_s)
        if ending.is_alive():
            # paho stays while bytes are unsent; a half-open link would keep it for minutes.
            with contextlib.suppress(OSError, AttributeError):
                self._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def stale(self) -> bool:
        """Whether certificates or passwords on the disk are others by now, and can be used."""
        if credentials.fingerprint(self._config) == self._read:
            return False
        try:
            credentials.username(self._config)
            credentials.password(self._config)
            if address(self._config)[2]:
                credentials.tls_context(self._config)
        except OSError:
            return False  # half-written, or wrong: what was read before goes on
        return True


class _Callbacks:
    """paho's callbacks: each turns what happened into a note, and does nothing else."""

    def __init__(self, tell: Callable[[Note], None], topics: Sequence[str], host: str) -> None:
        self._tell, self._topics, self._host = tell, topics, host

    def attach(self, client: _Client) -> None:
        client.died = self._died
        client.on_socket_open = lambda *_: self._tell(TcpConnected())
        client.on_connect_fail = lambda *_: self._tell(Lost(f"no connection to {self._host}"))
        client.on_connect = self._connect
        client.on_subscribe = self._subscribe
        client.on_message = self._message
        client.on_publish = self._publish
        client.on_disconnect = self._disconnect

    def _died(self, error: Exception) -> None:
        self._tell(Lost(f"{type(error).__name__}: {error}"))

    def _connect(self, c: mqtt.Client, _u: Any, _f: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            code = int(reason.value)
            self._tell(Lost(f"refused: {reason}", code == _UNSUPPORTED_PROTOCOL, code))
            return
        limits = (getattr(properties, n, None) for n in ("MaximumPacketSize", "ReceiveMaximum"))
        self._tell(Connected(*limits))
        if self._topics:
            c.subscribe([(topic, 1) for topic in self._topics])

    def _subscribe(self, _c: Any, _u: Any, _mid: int, reasons: Any, _p: Any) -> None:
        for topic, reason in zip(self._topics, reasons):  # noqa: B905  as many as the broker sent
            if reason.is_failure:
                self._tell(NotSubscribed(topic, str(reason)))

    def _message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        if len(message.payload) <= _MAX_INCOMING_BYTES:
            self._tell(_incoming(message))

    def _publish(self, _c: Any, _u: Any, mid: int, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._tell(Acknowledged(mid, str(reason), int(reason.value)))
        else:
            self._tell(Acknowledged(mid, None))

    def _disconnect(self, _c: Any, _u: Any, flags: Any, reason: Any, _p: Any) -> None:
        code = int(reason.value) if flags.is_disconnect_packet_from_server else None
        self._tell(Lost(str(reason), code=code))


def _incoming(message: mqtt.MQTTMessage) -> Incoming:
    properties = message.properties
    return Incoming(
        message.topic,
        bytes(message.payload),
        getattr(properties, "ResponseTopic", None),
        getattr(properties, "CorrelationData", None),
        message.retain,
    )


def address(config: MqttConfig) -> tuple[str, int, bool]:
    """Host, port, TLS of the broker; the embedded one is on loopback."""
    if config.broker == "embedded":
        return "127.0.0.1", config.port, False
    url = urlsplit(config.broker)
    tls = url.scheme == "mqtts"
    return url.hostname or "", url.port or (8883 if tls else 1883), tls


def check_files(config: MqttConfig) -> None:
    """Refuse at the start what would fail at every connection. Raises ConfigError."""
    for key, name in credentials.files(config):
        try:
            credentials.path_of(name).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"mqtt.{key}: {name}: {error.strerror}; give a file we can read"
            ) from None
    if config.key_file and not config.cert_file:
        raise ConfigError(
            f"mqtt.key_file: {config.key_file}: a key without mqtt.cert_file; give both"
        )
    if address(config)[2]:
        try:
            credentials.tls_context(config)
        except OSError as error:
            raise ConfigError(
                f"mqtt.ca_file, cert_file, key_file: {error.strerror or error}; give PEM files: "
                "CA certificates, our certificate, its key without a pass phrase"
            ) from None
