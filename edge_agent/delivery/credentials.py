"""Files of passwords, certificates and keys: a path or `credential:NAME`.

`credential:NAME` is the file NAME in $CREDENTIALS_DIRECTORY, filled by systemd from LoadCredential=
or SetCredential= of the unit. Files only, so no secret is in a config, environment or process list.
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
    """Return the path of a file name or `credential:NAME`.

    Raises:
        OSError: systemd provides no credentials, or NAME is not a valid credential name.
    """
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
    """Return the text of a small UTF-8 file without its final line break.

    Raises:
        OSError: the file cannot be read, is larger than 1 MiB or is not UTF-8.
    """
    path = path_of(name)
    if path.stat().st_size > _MAX_BYTES:
        raise OSError(27, f"larger than {_MAX_BYTES} bytes; not a password", name)
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise OSError(22, "is not UTF-8", name) from None


def files(config: MqttConfig) -> Iterator[tuple[str, str]]:
    """Yield (key, file name) for each key of [mqtt] that names a file."""
    for key in _FILES:
        name: str = getattr(config, key)
        if name:
            yield key, name


def fingerprint(config: MqttConfig) -> tuple[object, ...]:
    """Return a value that changes if one of the files changes.

    It uses inode, size and mtime only, and reads no file. A missing file counts as None.
    """
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
    """Return the user name from the config or its file. Raises OSError."""
    return read_line(config.username_file) if config.username_file else config.username


def password(config: MqttConfig) -> str | None:
    """Return the password from its file, or None. Raises OSError."""
    return read_line(config.password_file) if config.password_file else None


def tls_context(config: MqttConfig) -> ssl.SSLContext:
    """Return a TLS context with the configured or the system's CAs.

    It includes the client certificate if one is configured. Raises OSError.
    """
    ca_file = str(path_of(config.ca_file)) if config.ca_file else None
    context = ssl.create_default_context(cafile=ca_file)
    if config.cert_file:
        # Reject a key with a pass phrase; without `password` OpenSSL would prompt on the terminal.
        context.load_cert_chain(
            path_of(config.cert_file),
            path_of(config.key_file) if config.key_file else None,
            password="",
        )
    return context
