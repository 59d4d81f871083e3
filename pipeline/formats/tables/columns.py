"""Events as columns of numbers: which column is which, and how its numbers are to be taken.

Axes: N events. Columns with names are found by their usual names. In a table without names the content decides: time
stamps are in order, polarities have two values, coordinates are whole. Where several orders fit, or none,
`TableOptions` decide, and the message says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Facts, Pass, Stream
from spikebridge.pipeline.formats.tables.convert import check_shapes, from_columns, no_polarities, vector, whole_pixels
from spikebridge.pipeline.formats.tables.survey import Numbers, Pixels
from spikebridge.pipeline.formats.time_unit import (
    UNITS,
    doubts,
    float32_doubt,
    infer_unit,
    multiples_of_1000,
    to_microseconds,
)

SPELLINGS = {
    "t": (
        *("t", "ts", "time", "times", "timestamp", "timestamps"),
        *(f"{name}_{unit}" for name in ("t", "time", "timestamp") for unit in UNITS),
    ),
    "x": ("x", "xs", "x_pos", "x_coordinate", "px", "col", "column"),
    "y": ("y", "ys", "y_pos", "y_coordinate", "py", "row"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
"""Names of the columns, in lower case; the first that is there counts."""
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


Blocks = Callable[[Sequence[str]], Iterator[tuple[NDArray[Any], ...]]]
"""Begins a pass over the columns of these names, in blocks of rows [N], at least one; of a table without names over all
of it, [N,k]."""


@dataclass(frozen=True)
class Candidate:
    """A place in a file that may hold the events.

    Args:
        place: its name: a group, an array, a variable; empty for the file itself.
        names: of its columns; None for a table without names.
        blocks: begins a pass over it.
        likely: number of rows, as far as it is known before.
    """

    place: str
    names: tuple[str, ...] | None
    blocks: Blocks
    likely: int = 0

    @classmethod
    def at_once(cls, place: str, names: tuple[str, ...] | None, load: Callable[[str], NDArray[Any]]) -> Candidate:
        """Return a place whose columns are loaded whole, by name, and kept; a table without names by any name."""
        kept = cache(load)

        def blocks(wanted: Sequence[str]) -> Iterator[tuple[NDArray[Any], ...]]:
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


def choose(
    candidates: Sequence[Candidate],
    options: TableOptions,
    *,
    format: str,
    source: str,
    found: Collection[str],
    sensor_size: tuple[int, int] | None = None,
) -> Stream:
    """Return the events of the one candidate that fits; the facts are known from the beginning.

    Columns with names come before tables without; of these, those count whose content fits a usual order.

    Args:
        candidates: in the order of the file.
        options: of the user.
        format: for the facts.
        source: file name for messages.
        found: names in the file, for the message where nothing fits.
        sensor_size: (W, H) as the file states it.

    Raises:
        RecordingError: none fits, or several do (`columns`), or as `_survey`; in a pass, as
            `pipeline.formats.tables.convert`.
    """
    inside = [one for one in candidates if options.group in ("", one.place.strip("/"))]
    named = [one for one in inside if one.known(options)]
    tables = {} if named else {i: _numbers_of(one) for i, one in enumerate(inside) if one.names is None}
    orders = {i: fitting_orders(numbers, options) for i, numbers in tables.items()}
    fitting = named or [inside[i] for i, fit in orders.items() if fit]
    if len(fitting) == 1:
        order = next((fit[0] for fit in orders.values() if fit), "")
        return _stream(fitting[0], order, options, Facts(format, sensor_size), source)
    if fitting:
        places = ", ".join(one.place or "the top" for one in fitting[:8])
        raise RecordingError(
            f"{source}: {len(fitting)} places hold events: {places}. Say which with --group, for example --group "
            f"{fitting[0].place}.",
            reason="columns",
        )
    if tables:
        first, numbers = next(iter(tables.items()))
        raise _no_order(inside[first].place, len(numbers), source)
    if options.group and not inside:
        places = ", ".join(sorted({one.place for one in candidates if one.place})[:8]) or "none"
        raise RecordingError(f"{source}: no group {options.group} with columns; there are: {places}.", reason="columns")
    raise _no_columns(inside, options, source, found)


def _no_order(place: str, columns: int, source: str) -> RecordingError:
    return RecordingError(
        f"{source}: {place or 'a table'} has {columns} columns without names, and not exactly one of the usual "
        f"orders ({'; '.join(ORDERS)}) fits its content. Say what each column is with --columns, for example --columns "
        "x,y,t,p (- for one to leave out).",
        reason="columns",
    )


def _no_columns(
    candidates: Sequence[Candidate], options: TableOptions, source: str, found: Collection[str]
) -> RecordingError:
    nearest = max((one for one in candidates if one.names), key=lambda one: len(spelled(one.names or ())), default=None)
    names = nearest.names if nearest is not None and nearest.names else tuple(found)
    missing = [column for column in SPELLINGS if column not in spelled(names)]
    where = f" of {nearest.place}" if nearest is not None and nearest.place else ""
    shown = ", ".join(map(str, list(names)[:12])) or "no names"
    if options.columns and options.positions is None:
        return RecordingError(
            f"{source}: no columns {', '.join(options.columns)} among {shown}{where}; --columns names those of t, x, y "
            "and p, in this order.",
            reason="columns",
        )
    return RecordingError(
        f"{source}: no column {', '.join(missing)} among {shown}{where}; expected t, x, y and p (or ts, timestamps, "
        "polarity and the like). Name them with --columns (those of t, x, y, p, in this order), and --group where they "
        "lie deeper.",
        reason="columns",
    )


def _numbers_of(table: Candidate) -> list[Numbers]:
    """Look at all of a table without names, column by column."""
    numbers = list[Numbers]()
    for (block,) in table.blocks(("",)):
        numbers = numbers or [Numbers() for _ in range(block.shape[1])]
        for column, found in zip(block.T, numbers, strict=True):
            found.add(column)
    return numbers


def _stream(one: Candidate, order: str, options: TableOptions, facts: Facts, source: str) -> Stream:
    """Return the events of a candidate; `order` is that of a table without names, `facts` is known so far."""
    known = one.known(options)
    if known:
        renamed = [f"{column} = {name}" for column, name in known.items() if column != name]
        choices = [", ".join(renamed)] if renamed else []
    else:
        choices = [f"columns {order}" + ("" if options.columns else " by their content")]
    if one.place:
        choices.insert(0, f"events in {one.place}")
    unread = {"rows without a polarity": 0} if order == CELEX and not options.columns else {}

    def rows() -> Iterator[dict[str, NDArray[Any]]]:
        unread.update(dict.fromkeys(unread, 0))
        for block in one.blocks(tuple(known.values()) if known else ("",)):
            columns = dict(zip("txyp", block, strict=True)) if known else by_order(block[0], order)
            columns = {name: vector(column) for name, column in columns.items()}
            check_shapes(columns, source)
            for what in unread:  # p = 0 says that a pixel was read, not that it changed
                changed = columns["p"] != 0
                unread[what] += len(changed) - int(np.count_nonzero(changed))
                columns = {name: column[changed] for name, column in columns.items()}
            yield columns

    stated = options.time_unit or unit_of_name(known["t"] if known else "")
    unit, from_one, said, doubted = _survey(rows, stated, source)
    facts = replace(facts, passed_over=dict(unread), choices=(*choices, *said), doubts=doubted)

    def passes() -> Pass:
        for columns in rows():
            yield _events_of(columns, unit, from_one, source)
        return facts

    return Stream(passes, likely=one.likely, _facts=[facts])


def _survey(
    rows: Callable[[], Iterator[dict[str, NDArray[Any]]]], known: str, source: str
) -> tuple[str, bool, tuple[str, ...], tuple[str, ...]]:
    """Look at all columns of a recording.

    Args:
        rows: begins a pass over t, x, y, p, in blocks.
        known: unit of time that the user or the file names; empty where custom decides.
        source: file name for messages.

    Returns:
        The unit of time; whether polarity counts from 1; what was decided; and what is doubtful.

    Raises:
        RecordingError: as `pipeline.formats.time_unit` and `convert`.
    """
    t, p, pixels = Numbers(), Numbers(), Pixels()
    for columns in rows():
        t.add(columns["t"])
        p.add(columns["p"])
        if not known:
            pixels.add(*(whole_pixels(columns[name], name, source) for name in "xy"))
    unit = known or infer_unit(t, active_pixels=pixels.count, source=source)
    from_one = p.dtype.kind in "iuf" and p.count > 0 and bool(p.low >= 1 and p.high == 2)
    if not p.others and (
        {-1, 0} <= p.polarities or (2 in p.polarities and not from_one)
    ):  # which no block alone need show
        raise no_polarities(sorted(p.polarities), source)
    said = (*((f"times in {unit}",) * (unit != "us")), *(("polarity 1 is OFF, 2 is ON",) * from_one))
    found = float32_doubt(t, unit)
    if not known and t.dtype.kind in "iufb" and t.count:
        least, most = to_microseconds(t.extremes, unit, source=source).tolist()
        found += doubts(
            t.count,
            most - least,
            unit=unit,
            active_pixels=pixels.count,
            coarse=lambda: multiples_of_1000(to_microseconds(c["t"], unit, source=source) for c in rows()),
        )
    return unit, from_one, said, found


def _events_of(columns: Mapping[str, NDArray[Any]], unit: str, from_one: bool, source: str) -> Events:
    """Bring columns [N] into the project's types."""
    t, x, y, p = (columns[name] for name in "txyp")
    times = to_microseconds(t, unit, source=source) if t.dtype.kind in "iufb" else t  # what is wrong is said below
    return from_columns(times, x, y, p - 1 if from_one else p, source=source)


def spelled(names: Collection[str]) -> dict[str, str]:
    """Return which of the names is which column."""
    for prefix in ("", *PREFIXES):
        with_prefix = [name for name in reversed(list(names)) if name.lower().startswith(prefix)]
        lower = {name.lower().removeprefix(prefix): name for name in with_prefix}
        found = {c: [lower[s] for s in spellings if s in lower] for c, spellings in SPELLINGS.items()}
        known = {column: matches[0] for column, matches in found.items() if matches}
        if not prefix:
            plain = known
        if known.keys() == SPELLINGS.keys():
            return known
    return plain


def unit_of_name(name: str) -> str:
    """Return the unit that a column's name ends in, or an empty text."""
    ending = name.lower().rpartition("_")[2]
    return ending if "_" in name and ending in UNITS else ""


def is_table(array: Any) -> bool:
    """Whether an array has the shape of a table [N,4] or [4,N] of numbers."""
    return array.ndim == 2 and 4 in array.shape and array.dtype.kind in "iufb" and not array.dtype.hasobject


def upright(table: NDArray[Any]) -> NDArray[Any]:
    """Return a table as [N,4]: of 4 rows and more columns, the rows are the columns."""
    return table.T if table.shape[1] != 4 else table


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
