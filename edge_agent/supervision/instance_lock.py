"""One agent per state directory: two would share a spool."""

from __future__ import annotations

import errno
import fcntl
import logging
from pathlib import Path
from typing import IO

from edge_agent.errors import ConfigError

_log = logging.getLogger(__name__)


class InstanceLock:
    """Held once constructed, until `release` or the end of the process.

    A disk that fails is no mistake of whoever named it, and no reason not to inspect.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where another agent holds it, or we may not write."""
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
        if self._file:
            self._file.close()
