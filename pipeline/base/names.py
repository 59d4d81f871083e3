"""Names that people give: registries that refuse duplicates, and the known name nearest to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

Entry = TypeVar("Entry")


def register(registry: dict[str, Entry], name: str, entry: Entry) -> Entry:
    """Add an entry to a registry, and return it.

    Raises:
        ValueError: the name is taken.
    """
    if name in registry:
        raise ValueError(f"{name!r} is registered twice")
    registry[name] = entry
    return entry


def near_names(name: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """Return the known names nearest to a name, best first; none where none is near."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the nearest known name, else an empty text."""
    near = near_names(name, known)
    return f"; did you mean {near[0]}?" if near else ""
