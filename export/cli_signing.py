"""edge-export keygen, sign, pack, verify: signatures of bundles and their transport as one file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent import files
from edge_agent.bundle import archive, reader, signature
from edge_agent.bundle import manifest as bundles
from edge_agent.cli import kit
from export import signing_keys
from workshop.errors import WorkshopError

_Act = Callable[[argparse.Namespace], tuple[dict[str, object], str]]


def add_all(names: Any) -> None:
    """Add the subcommands to `names`, the result of `ArgumentParser.add_subparsers`."""
    for name, (act, fill, text, example) in COMMANDS.items():
        parser = names.add_parser(
            name, help=text, description=text, epilog=f"example: edge-export {example}"
        )
        fill(parser)
        kit.json_option(parser)
        parser.set_defaults(act=_shown, tell=act)


def _shown(args: argparse.Namespace) -> None:
    """Print the command's result as JSON or as a line; raise EdgeError."""
    report, line = args.tell(args)
    print(json.dumps(report) if args.json else line)


def _keygen(args: argparse.Namespace) -> tuple[dict[str, object], str]:
    key_id = signing_keys.generate(args.out)
    public = signing_keys.public_path(args.out)
    return {"key_id": key_id, "private": str(args.out), "public": str(public)}, (
        f"key {key_id}: {args.out} signs and stays with you, {public} goes to the lines "
        "(agent.trusted_keys)"
    )


def _sign(args: argparse.Namespace) -> tuple[dict[str, object], str]:
    key = signing_keys.read_private(args.key)
    # Load first: refuse to sign a bundle that no agent would accept.
    bundle = reader.load(args.bundle)
    path = args.bundle / signature.SIGNATURE
    try:
        raw = (args.bundle / bundles.MANIFEST).read_bytes()
        with files.replacing(path) as new:
            new.write_bytes(signature.sign(raw, key))
    except OSError as error:
        raise WorkshopError(f"{path}: {error.strerror}; the bundle must be writable") from None
    return _report(bundle, signature.key_id(key.public_key()))


def _verify(args: argparse.Namespace) -> tuple[dict[str, object], str]:
    trust = signature.trust(args.trusted, "--trusted")
    with archive.opened(args.bundle, trust) as folder:
        bundle = reader.load(folder, trust)
    return _report(replace(bundle, folder=args.bundle), bundle.signed_by)


def _pack(args: argparse.Namespace) -> tuple[dict[str, object], str]:
    # Load first: refuse to pack a bundle that no agent would accept.
    archive.pack(reader.load(args.bundle), args.out)
    size = args.out.stat().st_size
    signed = (args.bundle / signature.SIGNATURE).is_file()
    return {"parcel": str(args.out), "size_bytes": size, "signed": signed}, (
        f"{args.out}: {size / 1e6:.1f} MB, {'signed' if signed else 'not signed'}"
    )


def _report(bundle: bundles.Bundle, key_id: str) -> tuple[dict[str, object], str]:
    name, version = bundle.manifest.name, bundle.manifest.version
    report = {
        "bundle": str(bundle.folder),
        "name": name,
        "version": version,
        "sha256": bundle.sha256,
        "key_id": key_id,
    }
    return report, f"{bundle.folder}: {name} version {version}, whole, signed with key {key_id}"


def _fill_keygen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="KEY", help="and KEY.pub")


def _fill_sign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder")
    parser.add_argument("--key", type=Path, required=True, metavar="KEY", help="made by keygen")


def _fill_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder, signed before")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="to write")


def _fill_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder, or packed")
    parser.add_argument(
        "--trusted", nargs="+", required=True, metavar="KEY.pub", help="one of them has signed"
    )


COMMANDS: dict[str, tuple[_Act, Callable[[argparse.ArgumentParser], None], str, str]] = {
    "keygen": (_keygen, _fill_keygen, "Make a key that signs bundles.", "keygen --out line.key"),
    "sign": (_sign, _fill_sign, "Sign a bundle.", "sign bundle --key line.key"),
    "pack": (
        _pack,
        _fill_pack,
        "Make one file of a bundle, to carry; agents and commands take it as they take the folder.",
        "pack bundle --out steel-3.linegate",
    ),
    "verify": (
        _verify,
        _fill_verify,
        "Check a bundle as the agent does: signature, form, every file.",
        "verify bundle --trusted line.key.pub",
    ),
}
