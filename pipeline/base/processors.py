"""How many processors there are to use."""

from __future__ import annotations

import os


def usable_processors() -> int:
    """Return how many processors this process may run on, 1 or more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
