"""Lock that keeps a second agent out of a state directory: two would share one spool."""

from __future__ import annotations

import errno
import fcntl
import logging
from pathlib import Path
from typing import IO

from edge_agent.errors import ConfigError

_log = logging.getLogger(__name__)


class InstanceLock:
    """Lock held from construction until `release` or the end of the process.

    A read-only, full or failing disk is logged and inspection goes on: it is not a configuration
    error.
    """

    def __init__(self, folder: Path) -> None:
        """Raise ConfigError if another agent holds the lock, or the folder is not writable."""
        self._file: IO[str] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / "agent.lock").open("w")
        except OSError as error:
            if error.errno in (errno.EROFS, errno.ENOSPC, errno.EIO):
                _log.error("%s: %s; going on without it", folder, error.strerror)
                return
            raise ConfigError(
                f"agent.state_dir: {folder}: {error.strerror}; give a folder we may write to"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                f"agent.state_dir: {folder}: another agent is using it; "
                "give this one its own agent.name or agent.state_dir"
            ) from None

    def release(self) -> None:
        """Release the lock; do nothing if none is held."""
        if self._file:
            self._file.close()
