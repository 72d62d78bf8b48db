"""Connection to the broker; imports paho, as only `subscriber` does besides.

A paho client serves one connection and is never reused: its reconnection, its queue and its store
of unacknowledged messages are unsafe here (docs/internals.md).
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
"""Largest incoming payload passed on; an MQTT 5 broker is given a packet limit of twice this."""


class _Client(mqtt.Client):
    """paho client that reports an exception in its thread; paho itself does not."""

    died: Callable[[Exception], None]

    def loop_forever(
        self,
        timeout: float = 1.0,
        retry_first_connection: bool = False,  # noqa: ARG002 - paho's signature
    ) -> MQTTErrorCode:
        """Run paho's network loop in paho's thread, for one connection only.

        `retry_first_connection` is ignored. An exception is passed to `died`; the loop then returns
        MQTT_ERR_UNKNOWN.
        """
        try:
            return super().loop_forever(timeout, retry_first_connection=False)
        except Exception as error:
            self.died(error)
            return MQTTErrorCode.MQTT_ERR_UNKNOWN


class Connection:
    """Connection to the broker, opened in the background.

    All events, from the TCP connection to its loss, arrive through `tell`, in paho's thread.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Will,
        tell: Callable[[Note], None],
        mqtt311: bool,
        subscriptions: Sequence[str] = (),
    ) -> None:
        """Start to connect; return before the broker answers.

        Args:
            config: broker address, credentials, keepalive and window.
            client_id: MQTT client identifier.
            will: last will, published by the broker if the connection breaks.
            tell: called with each event in paho's thread; must return at once.
            mqtt311: use MQTT 3.1.1 instead of 5.
            subscriptions: topics to subscribe to with QoS 1 at each connection.

        Raises:
            BrokerError: the credentials or certificates cannot be read.
        """
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
        client.max_inflight_messages_set(config.window + 50)  # InFlight enforces the window
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
        """Send a message with QoS 1.

        Returns:
            The packet id of the expected acknowledgement, or None if nothing was sent.
        """
        properties = None
        if correlation_data is not None and self._mqtt5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation_data
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def close(self, flush_s: float = 0.0) -> None:
        """Disconnect, after waiting up to `flush_s` seconds for published data to leave.

        The broker discards the last will only if the connection ends with DISCONNECT. paho's thread
        may block in a name server lookup or a dead socket, so this never waits longer.
        """
        self._client.disconnect()
        ending = threading.Thread(target=self._client.loop_stop, name="mqtt-end", daemon=True)
        ending.start()
        ending.join(flush_s)
        if ending.is_alive():
            # paho's loop runs while bytes are unsent: on a half-open link, for minutes.
            with contextlib.suppress(OSError, AttributeError):
                self._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def stale(self) -> bool:
        """Return True if credentials or certificates on disk have changed and are usable."""
        if credentials.fingerprint(self._config) == self._read:
            return False
        try:
            credentials.username(self._config)
            credentials.password(self._config)
            if address(self._config)[2]:
                credentials.tls_context(self._config)
        except OSError:
            return False  # half-written or invalid: keep using the ones read before
        return True


class _Callbacks:
    """paho callbacks; each turns one event into a note and does nothing else.

    An exception in a callback would end paho's network thread while is_connected() stays True.
    """

    def __init__(self, tell: Callable[[Note], None], topics: Sequence[str], host: str) -> None:
        self._tell, self._topics, self._host = tell, topics, host

    def attach(self, client: _Client) -> None:
        """Set this object's methods as the callbacks of `client`."""
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
        for topic, reason in zip(self._topics, reasons):  # noqa: B905  the broker may send fewer
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
    """Return host, port and TLS flag of the broker; the embedded broker is on loopback."""
    if config.broker == "embedded":
        return "127.0.0.1", config.port, False
    url = urlsplit(config.broker)
    tls = url.scheme == "mqtts"
    return url.hostname or "", url.port or (8883 if tls else 1883), tls


def check_files(config: MqttConfig) -> None:
    """Check at startup the files that every connection needs.

    Raises:
        ConfigError: a file is missing, unreadable or not valid PEM, or a key has no certificate.
    """
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
