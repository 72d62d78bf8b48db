"""Payloads of commands over MQTT and of the replies to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from edge_agent.messages.events import MessagePart


class Command(MessagePart, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Payload of `command/status`, `command/start` and `command/stop`.

    The sender chooses `id`. The agent runs a command once per `id`; a repeated command gets the
    same reply again.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")]


class PictureCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/picture`: asks for the next frame, as JPEG on the reply's `topic`."""


class SetCoilCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/set_coil`: sets the coil of all frames judged from now on."""

    coil: Annotated[str, msgspec.Meta(pattern=r"^[ -~]{0,64}\Z")]


class StageCommand(Command, frozen=True, kw_only=True):
    """Payload of `command/stage`: names a bundle in the agent's `commands.bundle_folder`."""

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
    """Result of a command.

    `id` is that of the command, "" if it could not be read. If `ok` is false, `result` is null and
    `error` gives the reason.
    """

    schema_version: Literal[1] = 1
    agent: str
    boot_id: str
    command: str
    id: str
    ok: bool
    error: str
    result: dict[str, Any] | None
