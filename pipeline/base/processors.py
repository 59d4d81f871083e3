"""The processor: what it is, what it can, and how many there are to use."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TypedDict

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
"""Instructions that numeric libraries make use of, as Linux names them."""


class Processor(TypedDict):
    """The processor; what cannot be learned is None or empty."""

    name: str | None
    processors: int | None
    usable: int
    features: list[str]


def usable_processors() -> int:
    """Return how many processors this process may run on, 1 or more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_processor() -> Processor:
    """Return name, processors, those that this process may use, and those of `CPU_FEATURES` that it has."""
    name, flags = None, set[str]()
    for line in read_system_file(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip().lower() in ("flags", "features"):
            flags = set(value.split())
    return {
        "name": name or platform.processor() or None,
        "processors": os.cpu_count(),
        "usable": usable_processors(),
        "features": [feature for feature in CPU_FEATURES if feature in flags],
    }


def read_system_file(path: Path) -> list[str]:
    """Return the lines of a file of Linux; none on other systems."""
    try:
        return path.read_text().splitlines()
    except OSError:  # not Linux
        return []
