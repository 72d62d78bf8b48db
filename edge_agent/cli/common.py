"""Functions shared by the commands: adding a command, argument types, output files."""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.errors import EdgeError

Commands = Any
"""Type of the result of `ArgumentParser.add_subparsers`; argparse has no public name for it."""


def add(
    commands: Commands,
    name: str,
    text: str,
    example: str,
    act: Callable[[argparse.Namespace], None],
    *,
    more: str = "",
) -> argparse.ArgumentParser:
    """Add a command and return its parser.

    Args:
        commands: The group to add it to.
        name: The command's name.
        text: Help and description.
        example: Command line of the example, without edge-agent.
        act: Called with the parsed arguments.
        more: Text appended to the description.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text + more, epilog=f"example: edge-agent {example}"
    )
    parser.set_defaults(act=act)
    return parser


def group(commands: Commands, name: str, text: str, example: str) -> Commands:
    """Add a command that has subcommands; return the group to add them to."""
    parser = commands.add_parser(
        name, help=text, description=text, epilog=f"example: edge-agent {example}"
    )
    return parser.add_subparsers(dest=f"{name}_command", required=True)


def config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options --config and --set."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key"
    )


def count(text: str) -> int:
    """Return a whole number above 0. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def port(text: str) -> int:
    """Return a port number, 1 to 65535. Raises ArgumentTypeError."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
    return int(text)


def moment_ns(text: str) -> int:
    """Return a time as nanoseconds since 1970 (UTC). Raises ArgumentTypeError.

    The text is an age (30s, 15m, 6h, 2d) or an ISO 8601 time, local if it names no zone.
    """
    unit_s = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    if unit_s and text[:-1].isdecimal() and len(text) < 10:
        return time.time_ns() - int(text[:-1]) * unit_s * 10**9
    try:
        at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        at = -1
    if at < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give 15m, 6h or 2026-11-25T06:00")
    return int(at * 1e9)


def write(path: Path, text: str) -> None:
    """Write a text file, with its folder. Raises EdgeError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}; give a path that can be written") from None


def append(path: Path, data: bytes) -> None:
    """Append bytes to a file. Raises EdgeError."""
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}; give a path that can be written") from None
