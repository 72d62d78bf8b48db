"""Commands `spool` and `tail`: read the spool on the disk, with or without a running agent."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent.cli.common import Commands, add, config_options, count, group, moment_ns
from edge_agent.cli.kit import json_option
from edge_agent.errors import EdgeError

if TYPE_CHECKING:
    from edge_agent.config.config import Config
    from edge_agent.delivery.spool.message import StoredMessage
    from edge_agent.delivery.spool.reader import SpoolReader

_POLL_S = 0.3


def register(commands: Commands) -> None:
    """Add the commands `tail` and `spool`."""
    text = "print alerts from the spool: what was sent lately, what waits"
    tail = add(commands, "tail", text, "tail --config line.toml --since 1h --follow", _tail)
    tail.add_argument("--follow", action="store_true", help="go on with what comes")
    tail.add_argument("--count", type=count, metavar="N", help="end after N messages")
    tail.set_defaults(until_interrupted=True)
    text = "what lies in the spool, and what to do about it"
    acts = group(commands, "spool", text, "spool status --config line.toml")
    text = "how many messages wait, were sent, were refused"
    status = add(acts, "status", text, "spool status --config line.toml --json", _status)
    text = "write messages as JSON, one a line, with what became of them"
    export = add(
        acts, "export", text, "spool export --config line.toml --out events.jsonl", _export
    )
    export.add_argument("--out", type=Path, metavar="FILE", help="(default: print)")
    text = "have the agent send messages again that were sent or refused"
    example = "spool replay --config line.toml --state refused"
    more = ". They go out with replayed: true, within seconds or when the agent starts."
    replay = add(acts, "replay", text, example, _replay, more=more)
    replay.add_argument(
        "--state", choices=("sent", "refused"), required=True, help="those that were"
    )
    export.add_argument("--state", choices=("pending", "sent", "refused"), help="only those")
    for one in (tail, export, replay):
        one.add_argument(
            "--since",
            type=moment_ns,
            default=0,
            metavar="TIME",
            help="spooled since: 15m, 6h, 2d ago, or 2026-11-25T06:00",
        )
    for one in (export, replay):
        one.add_argument("--until", type=moment_ns, metavar="TIME", help="spooled until")
    for one in (tail, status, export, replay):
        config_options(one)
        if one is not export:
            json_option(one)


@contextlib.contextmanager
def _opened(args: argparse.Namespace) -> Iterator[tuple[Config, SpoolReader]]:
    """Yield the configuration and a reader of its spool."""
    from edge_agent.config import config as configs
    from edge_agent.delivery.spool.reader import SpoolReader

    config = configs.load(args.config, tuple(args.set))
    reader = SpoolReader(config.spool_file)
    try:
        yield config, reader
    finally:
        reader.close()


def _status(args: argparse.Namespace) -> None:
    with _opened(args) as (config, reader):
        status = reader.status()
    if args.json:
        print(msgspec.json.encode(status).decode())
        return
    oldest = f", the oldest since {_time(status.oldest_pending_ns)}" if status.pending else ""
    print(
        f"pending  {status.pending} messages, {status.pictures_pending} of them pictures{oldest}\n"
        f"sent     {status.sent} kept for a while\n"
        f"refused  {status.refused} set aside\n"
        f"used     {status.used_bytes / 1e6:.1f} of {config.queues.spool_bytes / 1e6:.1f} MB"
    )


def _export(args: argparse.Namespace) -> None:
    from edge_agent.delivery.spool.message import PICTURE, MessageFilter
    from edge_agent.delivery.spool.reader import STATES

    states = (STATES[args.state],) if args.state else tuple(STATES.values())
    choice = MessageFilter(
        since_ns=args.since, until_ns=args.until or time.time_ns(), states=states
    )
    with _opened(args) as (_, reader), _output(args.out) as write:
        for stored in reader.messages(choice):
            if not stored.message.kind.startswith(PICTURE):
                write(json.dumps(_as_json(stored)) + "\n")


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[Callable[[str], object]]:
    """Yield the function that writes to the file, or to stdout. Raises EdgeError."""
    if path is None:
        yield sys.stdout.write
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            yield file.write
    except OSError as error:
        raise EdgeError(f"--out: {path}: {error.strerror}; give a path to write") from None


def _as_json(stored: StoredMessage) -> dict[str, Any]:
    from edge_agent.delivery.spool.reader import state_of

    try:
        message = json.loads(stored.message.payload)
    except (ValueError, RecursionError):
        message = None  # damage that SQLite does not detect
    return {
        "kind": stored.message.kind,
        "state": state_of(stored),
        "reason": stored.reason,
        "spooled": _time(stored.spooled_ns),
        "message": message,
    }


def _replay(args: argparse.Namespace) -> None:
    from edge_agent.delivery.spool import replay
    from edge_agent.delivery.spool.message import MessageFilter
    from edge_agent.delivery.spool.reader import STATES

    until = args.until or time.time_ns()
    choice = MessageFilter(since_ns=args.since, until_ns=until, states=(STATES[args.state],))
    with _opened(args) as (config, reader):
        found = sum(1 for _ in reader.messages(choice))
    if found:
        file = replay.path(config.state_dir)
        try:
            replay.leave(file, choice)
        except OSError as error:
            raise EdgeError(f"{file}: {error.strerror}; run this as the agent's own user") from None
    print(json.dumps({"messages": found}) if args.json else f"{found} messages to be sent again")


def _tail(args: argparse.Namespace) -> None:
    from edge_agent.delivery.spool.message import PICTURE, MessageFilter

    with _opened(args) as (_, reader):
        cursor = shown = 0
        for again in itertools.count():
            if again:
                time.sleep(_POLL_S)
            for stored in reader.messages(MessageFilter(since_ns=args.since), cursor):
                cursor = stored.id
                if stored.message.kind.startswith(PICTURE):
                    continue
                print(_line(stored, as_json=args.json), flush=True)
                shown += 1
                if shown == args.count:
                    return
            if not args.follow:
                return


def _line(stored: StoredMessage, *, as_json: bool) -> str:
    from edge_agent.delivery.subscriber import decode, line

    payload = stored.message.payload
    try:
        return payload.decode() if as_json else line(decode(stored.message.kind, payload))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return f"message {stored.id} is damaged: {error}"


def _time(ns: int | None) -> str:
    from edge_agent.messages.events import utc

    return utc(ns) if ns is not None else ""
