"""Commands over MQTT and the replies to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from edge_agent.messages.events import MessagePart


class Command(MessagePart, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Payload of `command/status`, `command/start` and `command/stop`.

    `id` is the sender's: what is asked again under the same id is answered again, not done again.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")]


class PictureCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/picture`: the next frame, as JPEG on the topic that the reply names."""


class SetCoilCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/set_coil`: passed on in all that is judged from now on."""

    coil: Annotated[str, msgspec.Meta(pattern=r"^[ -~]{0,64}\Z")]


class StageCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/stage`: the name of a bundle in the agent's `commands.bundle_folder`."""

    bundle: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]


COMMANDS: dict[str, type[Command]] = {
    "status": Command,
    "picture": PictureCommand,
    "set_coil": SetCoilCommand,
    "start": Command,
    "stop": Command,
    "stage": StageCommand,
}


class Reply(MessagePart, frozen=True, kw_only=True):
    """What became of a command. `id` is the command's, "" where it could not be read; `result` is
    null where `ok` is false, and then `error` says why."""

    schema_version: Literal[1] = 1
    agent: str
    boot_id: str
    command: str
    id: str
    ok: bool
    error: str
    result: dict[str, Any] | None
