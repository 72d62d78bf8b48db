"""Embedded broker of the default setup: amqtt, in this process, on loopback only.

For a single machine or a demo. It keeps no messages over a restart; a plant runs its own broker.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from amqtt.broker import Broker

from edge_agent.errors import ConfigError

_START_TIMEOUT_S = 15.0
_GRACE_S = 0.5

_T = TypeVar("_T")


class _Broker(Broker):  # type: ignore[misc]  # amqtt is only partly typed
    """amqtt broker that tracks its clients; amqtt's own shutdown leaves some connections open."""

    def __init__(self, config: dict[str, object]) -> None:
        super().__init__(config)
        self._connected: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve one client and close its connection afterwards."""
        self._connected[writer] = asyncio.current_task()
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            # amqtt does not close a client that sent no CONNECT or left without DISCONNECT.
            writer.close()
            del self._connected[writer]

    async def shutdown(self) -> None:
        """Stop the broker and close all client connections."""
        await super().shutdown()
        # Let a connection that was just accepted run its first step.
        await asyncio.sleep(0)
        for writer in self._connected:
            writer.transport.abort()
        # Tasks that read from these clients see the closed connection and end.
        if waiting := [task for task in self._connected.values() if task]:
            await asyncio.wait(waiting, timeout=_GRACE_S)
        # A connection closes its socket in a later loop iteration.
        await asyncio.sleep(0)


class EmbeddedBroker:
    """Broker on a loopback port; it runs once constructed.

    Raises ConfigError if the port is in use.
    """

    def __init__(self, port: int) -> None:
        # amqtt reports a used port only in its log, and late: probe it first.
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(
                    f"mqtt.port: {port}: {error.strerror}; "
                    "set another port, or mqtt.broker to the broker that runs there"
                ) from None
        # Log errors only: `transitions`, amqtt's state machine library, logs every change of state.
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="broker", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            raise
        config = {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
        try:
            self._broker = self._call(self._make(config))
        except BaseException:
            self._end_loop()
            raise

    def close(self) -> None:
        """Stop the broker after a grace period of 0.5 s."""
        # Recently acknowledged messages may not have reached the subscribers yet.
        time.sleep(_GRACE_S)
        try:
            self._call(self._broker.shutdown())
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_START_TIMEOUT_S)

    @staticmethod
    async def _make(config: dict[str, object]) -> _Broker:
        broker = _Broker(config)
        await broker.start()
        return broker
