"""Memory limits of an export: full-size networks stay below 6 GB.

The converters copy all weights dozens of times, partly in reference cycles. glibc keeps freed
blocks of up to 32 MB, and Python collects cycles rarely; without this module that adds gigabytes.
"""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 256 << 10


def limit_heap() -> None:
    """Map each large block separately from now on; without glibc do nothing."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Collect reference cycles and return freed memory to the system."""
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
