"""Lets the C library keep the memory that one step frees, for the next one, which asks for as much again.

Left to itself glibc hands blocks of more than 32 MiB, and much of what lies at the heap's end, back to the kernel,
which has to clear every page of them anew in each step: a fifth of the processor time of a small network.

Source: mallopt(3), man-pages 6.03: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD.
"""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of the parameters in glibc's malloc.h."""
KEPT = 1 << 30
"""Bytes: the size from which a freed block goes back, and how much is free at the heap's end before that does."""
OLDER_LIMIT = 32 << 20
"""The largest block that older versions, but not 2.36, let one keep on a 64-bit machine."""


def keep_freed_memory() -> bool:
    """Set the limits of this process and return whether they are set; numbers computed are the same to the bit.

    They stay as they are without glibc, and where the environment sets some of its own (MALLOC_*, GLIBC_TUNABLES).
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    # In this order: either call ends glibc's own raising of the first limit.
    kept = mallopt(MMAP_THRESHOLD, KEPT) or mallopt(MMAP_THRESHOLD, OLDER_LIMIT)
    return bool(kept and mallopt(TRIM_THRESHOLD, KEPT))
