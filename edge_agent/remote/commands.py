"""Commands over MQTT: what may be asked is in `commands.allow`, and nothing else happens.

`<topics>/command/<name>` in, JSON; one reply a command out. What a message says is held against a
type, and becomes a coil's name, or the name of a bundle in one folder; never a path, a program or a
topic. A command has an id: the same id again gets the same reply, and nothing is done twice.
Retained commands are not for now and are ignored; so is what is too large, and what comes faster
than `commands.per_minute`, without a reply, which would only make a flood two. All is counted.
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
    """The sender of the command must act."""


class CommandTarget(Protocol):
    """What a command can reach; each is called in the commands' thread."""

    def status(self) -> dict[str, Any]: ...

    def picture(self) -> tuple[int, Image]:
        """The number and the image of the next frame. Raises Refused when none comes."""
        ...

    def set_coil(self, coil: str) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def stage(self, folder: Path) -> str:
        """Raises EdgeError; else the sha256 of what was staged."""
        ...


Say = Callable[..., None]
"""`say(topic, payload, correlation_data=…)`: sent, not spooled."""


class CommandReceiver(threading.Thread):
    """`receive` from any thread; the commands are done one after the other, in a thread."""

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
        return tuple(f"{self._base}/command/{name}" for name in sorted(set(self._rules.allow)))

    def counts(self) -> dict[str, int]:
        """By what became of them."""
        return dict(sorted(self._counts.items()))

    def receive(self, message: Incoming) -> None:
        """Returns at once."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._counts["too_many"] += 1

    def stop(self) -> None:
        """What waits is not done any more."""
        while True:
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:
                self._waiting.get_nowait()

    def run(self) -> None:
        while True:
            message = self._waiting.get()
            if message is None:
                return
            try:
                self.handle(message)
            except Exception:  # one command must not end all that come after it
                _log.exception("command on %s", message.topic)

    # The thread.

    def handle(self, message: Incoming) -> None:
        name = message.topic.removeprefix(f"{self._base}/command/")
        if message.retained:
            self._counts["retained"] += 1
        elif name not in self._rules.allow:
            self._counts["refused"] += 1  # we subscribed to no such topic
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
        """One of those that lie in the folder: the name is looked for, not followed."""
        try:
            found = [p for p in Path(self._rules.bundle_folder).iterdir() if p.name == name]
        except OSError as error:
            raise CommandRefused(f"stage: commands.bundle_folder: {error.strerror}") from None
        if not found or found[0].is_symlink():
            raise CommandRefused(f"stage: {name} is not in commands.bundle_folder")
        return found[0]

    def _picture(self, command: PictureCommand) -> dict[str, Any]:
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
