"""The embedded broker of the default set-up: amqtt, in this process, on loopback only.

For one machine, a demo or a first day. It keeps nothing over a restart; a plant runs its own.
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


class _Broker(Broker):  # type: ignore[misc]  # amqtt is not typed all through
    """amqtt's, which knows who is connected: its own shutdown leaves some of them open."""

    def __init__(self, config: dict[str, object]) -> None:
        super().__init__(config)
        self._connected: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        self._connected[writer] = asyncio.current_task()
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            # A client that said nothing, or left without a word, is not closed by amqtt.
            writer.close()
            del self._connected[writer]

    async def shutdown(self) -> None:
        await super().shutdown()
        # One that was just accepted has its first turn.
        await asyncio.sleep(0)
        for writer in self._connected:
            writer.transport.abort()
        # Whoever waits for the client learns that it has gone, and ends.
        if waiting := [task for task in self._connected.values() if task]:
            await asyncio.wait(waiting, timeout=_GRACE_S)
        # A connection closes its socket in a later turn.
        await asyncio.sleep(0)


class EmbeddedBroker:
    """Running once constructed. Raises ConfigError when the port is in use."""

    def __init__(self, port: int) -> None:
        # amqtt reports a taken port only in its log, after a while: ask first.
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(
                    f"mqtt.port: {port}: {error.strerror}; "
                    "set another port, or mqtt.broker to the broker that runs there"
                ) from None
        # Its transition log is for its own developers.
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
        # What was acknowledged to the agent a moment ago is still on its way to subscribers.
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
