"""Loader of a TOML file, with `--set key=value`, into a frozen tree of any type.

Unknown keys are errors. Messages name the key, the value and the fix.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from edge_agent.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES = 1 << 20
_Tree = TypeVar("_Tree", bound=msgspec.Struct)


def load(path: Path, kind: type[_Tree], overrides: tuple[str, ...] = ()) -> _Tree:
    """Return the checked file as `kind`. Raises ConfigError.

    `overrides` have the form "section.key=value".
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: larger than {_MAX_BYTES} bytes; not a config file")
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config: {path}: {error.strerror}; give an existing file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return override(tree, kind, overrides, str(path))


def override(
    tree: dict[str, Any], kind: type[_Tree], overrides: tuple[str, ...], source: str
) -> _Tree:
    """Set "section.key=value" overrides in `tree` and return it as `kind`.

    `source` is used in the message only. Raises ConfigError.
    """
    for one in overrides:
        _set(tree, one)
    return parse(tree, kind, source)


def parse(tree: dict[str, Any], kind: type[_Tree], source: str) -> _Tree:
    """Return a TOML tree as `kind`.

    `source` is used in the message only. Raises ConfigError.
    """
    odd = _odd_text(tree)
    if odd is not None:
        raise ConfigError(f"{source}: {odd}: holds a NUL or no UTF-8; no name or path may")
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        # A quoted key may contain a line break, which msgspec copies into its message.
        explained = " ".join(masked(_explain(str(error), tree, kind)).split())
        raise ConfigError(f"{source}: {explained}") from None


def _odd_text(tree: dict[str, Any]) -> str | None:
    """Return the key of a text with NUL or invalid UTF-8; None if there is none."""
    left: list[tuple[str, Any]] = [("", tree)]  # no recursion: the input may be nested to any depth
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left += [(_join(path, str(key)), one) for key, one in value.items()]
        elif isinstance(value, list):
            left += [(path, one) for one in value]
        elif isinstance(value, str) and ("\0" in value or not _encodes(value)):
            return " ".join(path.split())
    return None


def _encodes(text: str) -> bool:
    """Return True if the text can be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:  # an argument of the command line that is not UTF-8
        return False
    return True


def masked(text: str) -> str:
    """Return the text with the user and password of an address hidden, for any key."""
    return re.sub(r"//.*@", "//***@", text)


def _set(tree: dict[str, Any], override: str) -> None:
    """Set one "section.key=value" override in the tree. Raises ConfigError."""
    key, sign, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not sign or not last or not sections:
        raise ConfigError(f"--set: {masked(override)!r} is not section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text.strip()  # plain text or a path needs no quotes on the command line
    at = tree
    for section in sections:
        at = at.setdefault(section, {})
        if not isinstance(at, dict):
            raise ConfigError(f"--set: {masked(override)!r}: {section} is not a section")
    at[last] = value


def _explain(message: str, tree: dict[str, Any], kind: type) -> str:
    """Return a msgspec message as "camera.kind: …, got 'x'", with the known keys.

    The original form is "… - at `$.camera.kind`".
    """
    text, _, where = message.partition(" - at `$")
    path = re.sub(r"\[[^]]*\]", "", where.rstrip("`").lstrip("."))  # list[0] as list
    unknown = re.match(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    if unknown:
        known = _known_keys(path, tree, kind)
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"{_join(path, unknown[1])}: unknown key; {hint}"
    missing = re.match(r"Object missing required field `(.*)`", text)
    if missing:
        return f"{_join(path, missing[1])}: missing; add it"
    value: Any = tree
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return f"{path}: {value!r} does not fit: {text[:1].lower()}{text[1:]}"


def _known_keys(path: str, tree: dict[str, Any], kind: type) -> list[str]:
    """Return the keys valid at `path`; in a table with `kind`, those of that kind."""
    at: Any = tree
    kinds: list[Any] = [kind]
    for part in path.split(".") if path else []:
        at = at.get(part) if isinstance(at, dict) else None
        hints = [get_type_hints(k).get(part) for k in kinds if _is_struct(k)]
        kinds = [one for hint in hints for one in (get_args(hint) or (hint,))]
    tagged = [k for k in kinds if _is_struct(k) and k.__struct_config__.tag]
    if tagged:
        name = at.get("kind") if isinstance(at, dict) else None
        kinds = [k for k in tagged if k.__struct_config__.tag == name]
    return [f for k in kinds if _is_struct(k) for f in k.__struct_fields__]


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
