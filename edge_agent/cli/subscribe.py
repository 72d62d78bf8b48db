"""Command `watch`: print alerts from the broker, as a subscriber receives them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_agent.cli.common import Commands, add, append, count
from edge_agent.cli.kit import json_option


def register(commands: Commands) -> None:
    """Add the command `watch`."""
    watch = add(
        commands,
        "watch",
        "print alerts as they come",
        "watch --broker mqtt://127.0.0.1:1883",
        _watch,
    )
    watch.add_argument("--broker", default="mqtt://127.0.0.1:1883", help="(default %(default)s)")
    watch.add_argument("--root", default="linegate", help="first topic level")
    watch.add_argument("--username", default="")
    watch.add_argument("--password-file", default="", help="file that holds the password")
    watch.add_argument("--ca-file", default="", help="CA certificates for mqtts")
    watch.add_argument("--cert-file", default="", help="our certificate, where one is asked for")
    watch.add_argument("--key-file", default="", help="its key")
    watch.add_argument("--count", type=count, metavar="N", help="end after N messages")
    watch.add_argument("--record", type=Path, metavar="FILE", help="append each message's JSON")
    json_option(watch)
    watch.set_defaults(until_interrupted=True)


def _watch(args: argparse.Namespace) -> None:
    from edge_agent.config import config as configs
    from edge_agent.delivery.subscriber import ReceivedMessage, line, listen

    section = {"broker": args.broker, "root": args.root, "username": args.username}
    section |= {"password_file": args.password_file, "ca_file": args.ca_file}
    section |= {"cert_file": args.cert_file, "key_file": args.key_file}
    tree = {"agent": {"bundle": ""}, "camera": {"kind": "folder", "path": ""}, "mqtt": section}
    config = configs.parse(tree, "edge-agent watch").mqtt

    def subscribed() -> None:
        print(f"subscribed to {config.root} on {config.broker}", file=sys.stderr, flush=True)

    if args.record:
        append(args.record, b"")  # an unusable path must fail now, not at the first alert
    heard_count = 0
    for heard in listen(config, subscribed):
        if not isinstance(heard, ReceivedMessage):
            print(f"not understood: {heard}", file=sys.stderr, flush=True)
            continue
        print(heard.payload.decode() if args.json else line(heard.event), flush=True)
        if args.record:
            append(args.record, heard.payload + b"\n")
        heard_count += 1
        if heard_count == args.count:
            return
