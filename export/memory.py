"""An export of the full-size networks stays below 6 GB: what was freed goes back to the system.

The converters make dozens of copies of all weights and drop them again, partly in cycles. glibc
keeps freed blocks of up to 32 MB for later once a few were seen, and Python looks for cycles ever
more rarely the more objects there are: without the two functions here it is gigabytes more.
"""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 256 << 10


def limit_heap() -> None:
    """Have large blocks mapped one by one, from now on; without glibc nothing happens."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
