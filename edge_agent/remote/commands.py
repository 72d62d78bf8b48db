"""Commands over MQTT on `<topics>/command/<name>`, JSON; limited to `commands.allow`.

Payloads are checked against a type; they give coil and bundle names, never paths, programs or
topics. A repeated id gets the same reply and no second action.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edge_agent.clock import SYSTEM, Clock
from edge_agent.config.config import Config
from edge_agent.config.fields import CommandName
from edge_agent.delivery.connection_events import Incoming
from edge_agent.errors import EdgeError, one_line
from edge_agent.frame import Image
from edge_agent.messages.commands import (
    COMMANDS,
    Command,
    PictureCommand,
    Reply,
    SetCoilCommand,
    StageCommand,
)
from edge_agent.pipeline.evidence import RateLimit, jpeg

MAX_PAYLOAD_BYTES = 64 << 10
_MAX_CORRELATION_BYTES = 1024
_MAX_WAITING = 16
_REMEMBERED = 256

_log = logging.getLogger(__name__)


class CommandRefused(EdgeError):
    """Refusal of a command that its sender must correct."""


class CommandTarget(Protocol):
    """Interface to the agent's actions, called in the thread of the command receiver."""

    def status(self) -> dict[str, Any]:
        """Return the state of the agent as JSON-compatible values."""
        ...

    def picture(self) -> tuple[int, Image]:
        """Return number and image of the next frame. Raises CommandRefused if none arrives."""
        ...

    def set_coil(self, coil: str) -> None:
        """Set the coil of frames judged from now on."""
        ...

    def start(self) -> None:
        """Restart the inspection."""
        ...

    def stop(self) -> None:
        """Stop the inspection."""
        ...

    def stage(self, folder: Path) -> str:
        """Stage the bundle in `folder` and return its sha256. Raises EdgeError."""
        ...


Say = Callable[..., None]
"""`say(topic, payload, correlation_data=…)` publishes a message without spooling it."""


class CommandReceiver(threading.Thread):
    """Thread that executes commands one after the other; `receive` may be called from any thread.

    Ignored without a reply are retained commands (they are out of date), too large ones, and those
    above `commands.per_minute`: replies would double a flood. All are counted.
    """

    def __init__(
        self,
        *,
        config: Config,
        boot_id: str,
        line: CommandTarget,
        say: Say,
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(name="commands", daemon=True)
        self._rules, self._base, self._boot_id = config.commands, config.topic_base, boot_id
        self._evidence = config.evidence
        self._agent, self._line, self._say = config.agent.name, line, say
        self._waiting: queue.Queue[Incoming | None] = queue.Queue(_MAX_WAITING)
        self._done: OrderedDict[str, tuple[str, bytes, Reply]] = OrderedDict()
        self._allowance = RateLimit(self._rules.per_minute, clock.monotonic_s)
        self._counts: Counter[str] = Counter()

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Topics of the allowed commands."""
        return tuple(f"{self._base}/command/{name}" for name in sorted(set(self._rules.allow)))

    def counts(self) -> dict[str, int]:
        """Return the number of commands by result."""
        return dict(sorted(self._counts.items()))

    def receive(self, message: Incoming) -> None:
        """Queue a command and return at once; count it as too_many if the queue is full."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._counts["too_many"] += 1

    def stop(self) -> None:
        """End the thread; commands still queued may be discarded."""
        while True:
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:
                self._waiting.get_nowait()

    def run(self) -> None:
        """Execute queued commands until `stop`."""
        while True:
            message = self._waiting.get()
            if message is None:
                return
            try:
                self.handle(message)
            except Exception:  # a failed command must not end the thread
                _log.exception("command on %s", message.topic)

    # In the thread.

    def handle(self, message: Incoming) -> None:
        """Check, execute and answer one command."""
        name = message.topic.removeprefix(f"{self._base}/command/")
        if message.retained:
            self._counts["retained"] += 1
        elif name not in self._rules.allow:
            self._counts["refused"] += 1  # not subscribed, yet the broker delivered it
        elif len(message.payload) > MAX_PAYLOAD_BYTES or (
            len(message.correlation_data or b"") > _MAX_CORRELATION_BYTES
        ):
            self._counts["too_large"] += 1
        elif not self._allowance.take():
            self._counts["too_many"] += 1
        else:
            self._answer(message, self._replied(name, message.payload))
            return
        _log.warning("command %s ignored: %s", name[:40], self.counts())

    def _replied(self, name: CommandName, payload: bytes) -> Reply:
        try:
            command = msgspec.json.decode(payload, type=COMMANDS[name])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._counts["refused"] += 1
            return self._reply(name, "", error=one_line(error)[:300])
        before = self._done.get(command.id)
        if before:
            if before[:2] == (name, payload):
                self._counts["repeated"] += 1
                return before[2]
            self._counts["refused"] += 1
            return self._reply(name, command.id, error="id: was used for another command")
        try:
            reply = self._reply(name, command.id, result=self._act(name, command))
            self._counts["done"] += 1
        except EdgeError as error:
            self._counts["failed"] += 1
            reply = self._reply(name, command.id, error=str(error))
        self._done[command.id] = (name, payload, reply)
        while len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)
        _log.info("command %s %s: %s", name, command.id, reply.error or "done")
        return reply

    def _act(self, name: CommandName, command: Command) -> dict[str, Any]:
        if isinstance(command, PictureCommand):
            return self._picture(command)
        if isinstance(command, SetCoilCommand):
            self._line.set_coil(command.coil)
            return {"coil": command.coil}
        if isinstance(command, StageCommand):
            return {"sha256": self._line.stage(self._folder(command.bundle))}
        if name == "status":
            return self._line.status() | {"commands": self.counts()}
        if name == "start":
            self._line.start()
        else:
            self._line.stop()
        return {"inspecting": name == "start"}

    def _folder(self, name: str) -> Path:
        """Return the bundle folder called `name`.

        The name is compared with the folder's entries and never used as a path, and a symbolic link
        is refused, so it cannot lead outside. Raises CommandRefused.
        """
        try:
            found = [p for p in Path(self._rules.bundle_folder).iterdir() if p.name == name]
        except OSError as error:
            raise CommandRefused(f"stage: commands.bundle_folder: {error.strerror}") from None
        if not found or found[0].is_symlink():
            raise CommandRefused(f"stage: {name} is not in commands.bundle_folder")
        return found[0]

    def _picture(self, command: PictureCommand) -> dict[str, Any]:  # noqa: ARG002 - as all acts
        frame_id, image = self._line.picture()
        data, shape = jpeg(image, self._evidence)
        topic = f"{self._base}/evidence/{self._boot_id[:8]}-{frame_id}"
        self._say(topic, data)
        return {
            "topic": topic,
            "frame_id": frame_id,
            "size_bytes": len(data),
            "width_px": shape[1],
            "height_px": shape[0],
        }

    def _reply(
        self, name: CommandName, command_id: str, *, error: str = "", result: Any = None
    ) -> Reply:
        return Reply(
            agent=self._agent,
            boot_id=self._boot_id,
            command=name,
            id=command_id,
            ok=not error,
            error=error,
            result=result,
        )

    def _answer(self, message: Incoming, reply: Reply) -> None:
        own = f"{self._base}/reply"
        asked, topic = message.response_topic or "", own
        if (
            any(asked == t or asked.startswith(f"{t}/") for t in (own, *self._rules.reply_topics))
            and not set("+#\0") & set(asked)
            and len(asked) <= 256
        ):
            topic = asked
        self._say(topic, msgspec.json.encode(reply), correlation_data=message.correlation_data)
