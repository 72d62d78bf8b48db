"""Where passwords, certificates and keys are: a path, or a systemd credential by its name.

`credential:NAME` is the file NAME in $CREDENTIALS_DIRECTORY, where systemd puts what
LoadCredential= and SetCredential= of the unit give. Only files: a secret is in no config, no
environment and no process list.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from edge_agent.config.config import MqttConfig

_PREFIX = "credential:"
_FILES = ("username_file", "password_file", "ca_file", "cert_file", "key_file")
_MAX_BYTES = 1 << 20


def path_of(name: str) -> Path:
    """Raises OSError where systemd gave no credentials, or the name is none."""
    if not name.startswith(_PREFIX):
        return Path(name)
    credential = name.removeprefix(_PREFIX)
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        raise FileNotFoundError(
            2, "systemd gave no credentials (LoadCredential= in the unit)", name
        )
    if not credential or "/" in credential or credential in (".", ".."):
        raise FileNotFoundError(2, "is no name of a credential", name)
    return Path(folder) / credential


def read_line(name: str) -> str:
    """The text of a small file, without the line break at its end. Raises OSError."""
    path = path_of(name)
    if path.stat().st_size > _MAX_BYTES:
        raise OSError(27, f"larger than {_MAX_BYTES} bytes; not a password", name)
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise OSError(22, "is not UTF-8", name) from None


def files(config: MqttConfig) -> Iterator[tuple[str, str]]:
    """The keys of [mqtt] that name a file, and what they name."""
    for key in _FILES:
        name: str = getattr(config, key)
        if name:
            yield key, name


def fingerprint(config: MqttConfig) -> tuple[object, ...]:
    """Changes when one of the files does; cheap, it reads none. A file that is gone is None."""
    found: list[object] = []
    for _, name in files(config):
        try:
            status = path_of(name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def username(config: MqttConfig) -> str:
    return read_line(config.username_file) if config.username_file else config.username


def password(config: MqttConfig) -> str | None:
    return read_line(config.password_file) if config.password_file else None


def tls_context(config: MqttConfig) -> ssl.SSLContext:
    """The system's CAs or our own, a client certificate where one is given. Raises OSError."""
    ca_file = str(path_of(config.ca_file)) if config.ca_file else None
    context = ssl.create_default_context(cafile=ca_file)
    if config.cert_file:
        # A key behind a pass phrase is refused; without this OpenSSL would ask on the terminal.
        context.load_cert_chain(
            path_of(config.cert_file),
            path_of(config.key_file) if config.key_file else None,
            password="",
        )
    return context
