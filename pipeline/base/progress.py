"""Progress of long work, shown by whoever calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Wraps an iterable to show progress: (items, total, what)."""


def no_progress(items: Iterable[Any], _total: int, _what: str) -> Iterable[Any]:
    """Return the items; nothing is shown."""
    return items
