"""Plain dictionaries as registries: a decorator that rejects duplicates, a look-up that lists near matches."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

from spikebridge.models.errors import UnknownNameError

Entry = TypeVar("Entry")


def register(table: dict[str, Entry], name: str) -> Callable[[Entry], Entry]:
    """Enter what is decorated into `table` under `name`.

    Raises:
        ValueError: the name is taken.
    """

    def enter(entry: Entry) -> Entry:
        if name in table:
            raise ValueError(f"{name!r} is registered already, as {table[name]!r}; choose another name.")
        table[name] = entry
        return entry

    return enter


def lookup(table: Mapping[str, Entry], name: str, *, kind: str) -> Entry:
    """Return the entry called `name`.

    Args:
        table: the registry.
        name: what was asked for; capitals count.
        kind: what the entries are, for the message.

    Raises:
        UnknownNameError: no such entry; the message lists near matches and then all names.
    """
    if name in table:
        return table[name]
    lowered = {known.lower(): known for known in table}
    near = [lowered[match] for match in difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UnknownNameError(f"Unknown {kind} {name!r}.{hint} There are: {', '.join(sorted(table))}.")
