"""Events as columns of numbers: where they may lie in a file, and which column is which.

Axes: N events. Columns with names are found by their usual names. In a table without names the content decides: time
stamps are in order, polarities have two values, coordinates are whole. Where several orders fit, or none,
`TableOptions` decide, and the message says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.formats.tables.survey import Numbers
from spikebridge.pipeline.formats.time_unit import UNITS

UNIT_NAMES = {
    **{name: name for name in UNITS},
    **dict.fromkeys(("sec", "secs", "seconds"), "s"),
    **dict.fromkeys(("msec", "milliseconds"), "ms"),
    **dict.fromkeys(("usec", "microseconds", "\u00b5s", "\u03bcs"), "us"),
    **dict.fromkeys(("nsec", "nanoseconds"), "ns"),
}
"""Units of time as the names of columns end in them, `t_us` or `Time [us]`."""
BRACKETS = re.compile(r"\s*[\[(]\s*(.*?)\s*[\])]$")
SPELLINGS = {
    "t": (
        *("t", "ts", "time", "times", "timestamp", "timestamps"),
        *("time_stamp", "time_stamps"),
        *(f"{name}_{unit}" for name in ("t", "time", "timestamp") for unit in UNIT_NAMES),
    ),
    "x": ("x", "xs", "x_pos", "x_coord", "x_coords", "x_coordinate", "px", "col", "column"),
    "y": ("y", "ys", "y_pos", "y_coord", "y_coords", "y_coordinate", "py", "row"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
"""Names of the columns, in lower case, without what stands in brackets; the first that is there counts."""
PREFIXES = ("event_", "events_", "ev_", "dvs_", "raw_events_", "dataset_events_")
"""What may stand before such a name."""
ORDERS = ("t,x,y,p", "x,y,t,p", "x,y,p,t")
"""Orders of tables without names that data sets and tools are known to write."""
CELEX = "y,x,-,p,t"
"""Order of tables of five columns: row, column, brightness, polarity (0: no event), time; the CeleX-V's."""
LEAVE_OUT = "-"
AT_ONCE_BYTES, BLOCK_ROWS = 2**26, 2**17
"""Bytes of a file's columns up to which they are loaded whole; rows of a block of longer ones."""


@dataclass(frozen=True)
class TableOptions:
    """What a user says about files of columns whose meaning they leave open.

    Args:
        columns: of a table without names, what each of its columns is, from the first on: t, x, y, p, or `-` for one
            that is left out. Of columns with names, the names of t, x, y and p, in this order. Empty for: found out.
        group: group, array or variable that holds the events; empty for: searched for.
        time_unit: `s`, `ms`, `us` or `ns`; empty for: whole numbers are microseconds, fractions are seconds.

    Raises:
        SettingsError: columns that are not four, or a unit that is not known.
    """

    columns: tuple[str, ...] = ()
    group: str = ""
    time_unit: str = ""

    def __post_init__(self) -> None:
        if self.columns and len([name for name in self.columns if name != LEAVE_OUT]) != 4:
            raise SettingsError(
                f"columns are {','.join(self.columns)}; expected t, x, y and p in the order of the file, such as "
                "x,y,t,p, with - for columns to leave out, or the four names of t, x, y and p."
            )
        if self.time_unit and self.time_unit not in UNITS:
            raise SettingsError(f"time unit is {self.time_unit!r}; expected one of {', '.join(UNITS)}.")

    @property
    def positions(self) -> dict[str, int] | None:
        """Return the place of t, x, y and p in a table without names, or None where other names are given."""
        places = {name: i for i, name in enumerate(self.columns) if name != LEAVE_OUT}
        return places if places.keys() == SPELLINGS.keys() else None


DEFAULT = TableOptions()


def at_once(columns_bytes: int) -> bool:
    """Return whether the columns of a file are loaded whole."""
    return columns_bytes <= AT_ONCE_BYTES


Blocks = Callable[[Sequence[str], int, int | None], Iterator[tuple[NDArray[Any], ...]]]
"""Begins a pass over the columns of these names, in blocks of rows [N], at least one; of a table without names over all
of it, [N,k]. From one row up to another, but only of places that have a `length`."""


def whole(names: Sequence[str]) -> int:
    """Return the `length` of a place of which no part can be read alone."""
    return 0


@dataclass(frozen=True)
class Candidate:
    """A place in a file that may hold the events.

    Args:
        place: its name: a group, an array, a variable; empty for the file itself.
        names: of its columns; None for a table without names.
        blocks: begins a pass over it.
        length: returns the number of rows of columns any of which can be read alone; 0 where none can.
    """

    place: str
    names: tuple[str, ...] | None
    blocks: Blocks
    length: Callable[[Sequence[str]], int] = whole

    @classmethod
    def at_once(cls, place: str, names: tuple[str, ...] | None, load: Callable[[str], NDArray[Any]]) -> Candidate:
        """Return a place whose columns are loaded whole, by name, and kept; a table without names by any name."""
        kept = cache(load)

        def blocks(wanted: Sequence[str], start: int, stop: int | None) -> Iterator[tuple[NDArray[Any], ...]]:
            yield tuple(kept(name) for name in wanted)

        return cls(place, names, blocks)

    def known(self, options: TableOptions) -> dict[str, str] | None:
        """Return the names of t, x, y and p, or None where they are not all there."""
        if self.names is None:
            return None
        if options.columns and options.positions is None:
            wanted = [name for name in options.columns if name != LEAVE_OUT]
            return dict(zip("txyp", wanted, strict=True)) if set(wanted) <= set(self.names) else None
        known = spelled(self.names)
        return known if known.keys() == SPELLINGS.keys() else None


def spelled(names: Collection[str]) -> dict[str, str]:
    """Return which of the names is which column."""
    plainly = {name: BRACKETS.sub("", name.strip().lower()).replace(" ", "_") for name in reversed(list(names))}
    for prefix in ("", *PREFIXES):
        lower = {word.removeprefix(prefix): name for name, word in plainly.items() if word.startswith(prefix)}
        found = {c: [lower[s] for s in spellings if s in lower] for c, spellings in SPELLINGS.items()}
        known = {column: matches[0] for column, matches in found.items() if matches}
        if not prefix:
            plain = known
        if known.keys() == SPELLINGS.keys():
            return known
    return plain


def unit_of_name(name: str) -> str:
    """Return the unit that a column's name ends in, also in brackets, or an empty text."""
    lower = name.strip().lower()
    bracketed = BRACKETS.search(lower)
    ending = bracketed[1] if bracketed else lower.rpartition("_")[2] if "_" in lower else ""
    return UNIT_NAMES.get(ending, "")


def is_table(array: Any, options: TableOptions = DEFAULT) -> bool:
    """Whether an array has the shape of a table [N,4] or [4,N] of numbers, or of the columns that the user lists."""
    if array.ndim != 2 or array.dtype.kind not in "iufb" or array.dtype.hasobject:
        return False
    return 4 in array.shape or bool(options.positions and len(options.columns) == array.shape[1])


def upright(table: NDArray[Any]) -> NDArray[Any]:
    """Return a table as [N,k]: of 4 rows and other than 4 columns, the rows are the columns."""
    return table.T if table.shape[0] == 4 != table.shape[1] else table


def fitting_orders(columns: Sequence[Numbers], options: TableOptions) -> list[str]:
    """Return the order that the user gives, or the one usual order that the columns of a table fit, or none."""
    if options.columns:
        return [",".join(options.columns)] if options.positions and len(options.columns) == len(columns) else []
    if not columns or not columns[0].count or not all(column.finite for column in columns):
        return []
    if len(columns) == 5:
        return [CELEX] if _celex(columns) else []
    if len(columns) != 4:
        return []
    tests = {
        "t": [column.ordered and column.first >= 0 for column in columns],
        "x": [column.are_pixels for column in columns],
        "y": [column.are_pixels for column in columns],
        "p": [column.are_polarities for column in columns],
    }
    orders = [order for order in ORDERS if all(tests[c][i] for i, c in enumerate(order.split(",")))]
    if not all(column.whole for column in columns):  # only times have fractions
        orders = [order for order in orders if not columns[order.split(",").index("t")].whole]
    if len(orders) > 1:  # of short recordings; more values than two are no polarity, and the widest column is the time
        widest = int(np.argmax([float(column.high) - float(column.low) for column in columns]))
        orders = [order for order in orders if order.split(",")[widest] == "t" and not columns[widest].are_pixels]
    return orders if len(orders) == 1 else []


def by_order(table: NDArray[Any], order: str) -> dict[str, NDArray[Any]]:
    """Return the columns of a table by an order such as `x,y,t,p`."""
    return {name: table[:, i] for i, name in enumerate(order.split(",")) if name != LEAVE_OUT}


def _celex(columns: Sequence[Numbers]) -> bool:
    y, x, _, p, t = columns
    signs = not p.others and p.polarities <= {-1, 0, 1}
    return bool(x.are_pixels and y.are_pixels and signs and t.ordered and t.first >= 0)
