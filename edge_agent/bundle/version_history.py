"""Version history in the state directory: the highest version of each bundle that ran here.

A signature proves the origin, not the latest version: a person who can write the folder can put
back an old bundle with its valid signature. A damaged history is logged and never stops the line.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_agent import files
from edge_agent.bundle.manifest import MAX_VERSION, Bundle
from edge_agent.errors import BundleError

FILE = "bundle-versions.json"
_MAX_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class BundleVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Version of a bundle that ran, with the sha256 of its `bundle.json`."""

    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _History(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema_version: Literal[1] = 1
    highest: dict[str, BundleVersion] = {}


def highest(state_dir: Path) -> dict[str, BundleVersion]:
    """Return the highest version that ran, by bundle name; log a damaged file."""
    try:
        return _read(state_dir / FILE)
    except ValueError as error:
        _log.error("%s: %s; an older bundle would not be noticed", state_dir / FILE, error)
        return {}


def check(state_dir: Path, bundle: Bundle, *, allow_older: bool) -> None:
    """Raise BundleError for a version below the highest that ran here, unless allowed."""
    path = state_dir / FILE
    name, version = bundle.manifest.name, bundle.manifest.version
    ran = highest(state_dir).get(name)
    if ran is None:
        return
    if version < ran.version:
        said = f"{bundle.folder}: {name} version {version} is older than {ran.version}, which ran "
        if not allow_older:
            raise BundleError(
                f"{said}here; take version {ran.version} or a later one, "
                "or run it all the same with --allow-older"
            )
        _log.warning("%shere; --allow-older lets it run", said)
    elif version == ran.version and bundle.sha256 != ran.sha256:
        _log.warning("%s: %s version %d ran here with another content", path, name, version)


def remember(state_dir: Path, bundle: Bundle) -> None:
    """Record that the bundle runs; log disk errors, raise none."""
    path = state_dir / FILE
    try:
        known, damage = _read(path), None
    except ValueError as error:
        known, damage = {}, error
    manifest = bundle.manifest
    before = known.get(manifest.name)
    now = BundleVersion(version=manifest.version, sha256=bundle.sha256)
    if before == now or (before and before.version > now.version):
        return
    try:
        if damage:
            _log.error("%s: set aside as %s", path, files.set_aside(path).name)
        with files.replacing(path) as new:
            files.write_json(new, _History(highest={**known, manifest.name: now}))
    except OSError as error:
        _log.error("%s: %s; that this version ran is not remembered", path, error.strerror)


def _read(path: Path) -> dict[str, BundleVersion]:
    """Return the versions by bundle name, empty without a file; raise ValueError if unusable."""
    try:
        return files.read_json(path, _History, _MAX_BYTES).highest
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(error.strerror) from None
