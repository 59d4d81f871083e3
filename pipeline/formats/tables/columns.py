"""Events as columns of numbers: which column is which, and the numbers in the project's types.

Axes: N events. Columns with names are found by their usual names. In a table without names the content decides: time
stamps are in order, polarities have two values, coordinates are whole. Where several orders fit, or none,
`TableOptions` decide, and the message says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Decoded, Facts
from spikebridge.pipeline.formats.time_unit import (
    UNITS,
    active_pixels,
    doubts,
    float32_doubt,
    infer_unit,
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
MOST_PIXELS = 2**14
"""Of a side: no sensor is larger."""
LEAVE_OUT = "-"


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


@dataclass(frozen=True)
class Candidate:
    """A place in a file that may hold the events.

    Args:
        place: its name: a group, an array, a variable; empty for the file itself.
        names: of its columns; None for a table without names.
        load: returns a column by name, or the table [N,k] (any name).
    """

    place: str
    names: tuple[str, ...] | None
    load: Callable[[str], NDArray[Any]]

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
    candidates: Sequence[Candidate], options: TableOptions, *, format: str, source: str, found: Collection[str]
) -> Decoded:
    """Return the events of the one candidate that fits.

    Columns with names come before tables without; of these, those count whose content fits a usual order.

    Args:
        candidates: in the order of the file.
        options: of the user.
        format: for the facts.
        source: file name for messages.
        found: names in the file, for the message where nothing fits.

    Raises:
        RecordingError: none fits, or several do (`columns`), or as `events_of_columns`.
    """
    inside = [one for one in candidates if options.group in ("", one.place.strip("/"))]
    named = [one for one in inside if one.known(options)]
    orders = (
        {} if named else {i: fitting_orders(one.load(""), options) for i, one in enumerate(inside) if not one.names}
    )
    fitting = named or [inside[i] for i, fit in orders.items() if fit]
    if len(fitting) == 1:
        order = next((fit[0] for fit in orders.values() if fit), "")
        return _decoded(fitting[0], order, options, format, source)
    if fitting:
        places = ", ".join(one.place or "the top" for one in fitting[:8])
        raise RecordingError(
            f"{source}: {len(fitting)} places hold events: {places}. Say which with --group, for example --group "
            f"{fitting[0].place}.",
            reason="columns",
        )
    unnamed = [one for one in inside if one.names is None]
    if unnamed:
        raise _no_order(unnamed[0], source)
    if options.group and not inside:
        places = ", ".join(sorted({one.place for one in candidates if one.place})[:8]) or "none"
        raise RecordingError(f"{source}: no group {options.group} with columns; there are: {places}.", reason="columns")
    raise _no_columns(inside, options, source, found)


def _no_order(table: Candidate, source: str) -> RecordingError:
    shape = table.load("").shape
    return RecordingError(
        f"{source}: {table.place or 'a table'} has {shape[1]} columns without names, and not exactly one of the usual "
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


def _decoded(one: Candidate, order: str, options: TableOptions, format: str, source: str) -> Decoded:
    """Return the events of a candidate; `order` is that of a table without names."""
    known = one.known(options)
    if known:
        columns = {column: one.load(name) for column, name in known.items()}
        renamed = [f"{column} = {name}" for column, name in known.items() if column != name]
        choices = [", ".join(renamed)] if renamed else []
        unit = unit_of_name(known["t"])
    else:
        columns = by_order(one.load(""), order)
        choices = [f"columns {order}" + ("" if options.columns else " by their content")]
        unit = ""
    if one.place:
        choices.insert(0, f"events in {one.place}")
    return events_of_columns(columns, options, format=format, source=source, choices=choices, unit=unit)


def events_of_columns(
    columns: Mapping[str, NDArray[Any]],
    options: TableOptions,
    *,
    format: str,
    source: str,
    choices: Sequence[str] = (),
    unit: str = "",
    sensor_size: tuple[int, int] | None = None,
    passed_over: Mapping[str, int] | None = None,
) -> Decoded:
    """Bring columns of any numeric type into the project's types, and doubt what custom alone decides.

    Polarity may be 0 and 1, -1 and 1, or 1 and 2 (MATLAB's habit; 1 is OFF).

    Args:
        columns: t, x, y, p, [N] each; a row or column of a matrix counts as [N].
        options: of the user; its unit counts before all others.
        format: for the facts.
        source: file name for messages.
        choices: for the facts.
        unit: of time, where the file itself names it.
        sensor_size: (W, H) as the file states it.
        passed_over: for the facts.

    Raises:
        RecordingError: as `from_columns` and `pipeline.formats.time_unit`.
    """
    flat = {name: _vector(column) for name, column in columns.items()}
    check_shapes(flat, source)
    said, doubted = list(choices), list[str]()
    t, known = flat["t"], options.time_unit or unit
    x, y = (_whole(flat[name], name, source, 2**31 - 1, "Give pixels.") for name in "xy")
    pixels = 0 if known else active_pixels(x, y)
    if t.dtype.kind in "iufb":
        taken = known or infer_unit(t, active_pixels=pixels, source=source)
        times = to_microseconds(t, taken, source=source)
    else:
        taken, times = "us", t  # `from_columns` says what is wrong
    if taken != "us":
        said.append(f"times in {taken}")
    polarity = flat["p"]
    if polarity.dtype.kind in "iuf" and polarity.size and polarity.max() == 2 and polarity.min() >= 1:
        polarity = polarity - 1
        said.append("polarity 1 is OFF, 2 is ON")
    events = from_columns(times, x, y, polarity, source=source)
    doubted += float32_doubt(t, taken)
    if not known:
        doubted += doubts(events, unit=taken, pixels=pixels)
    facts = Facts(format, sensor_size, dict(passed_over or {}), tuple(said), tuple(doubted))
    return Decoded(events, facts)


def from_columns(t: Any, x: Any, y: Any, p: Any, *, source: str) -> Events:
    """Bring columns of any numeric type into the project's types, times in whole microseconds.

    Polarity may be 0 and 1, False and True, or -1 and 1 (-1 becomes 0).

    Args:
        t: [N] whole microseconds, not negative.
        x: [N] columns.
        y: [N] rows.
        p: [N] polarities.
        source: file name for messages.

    Raises:
        RecordingError: not [N] (`shape`), fractions or no numbers (`fractional`), negative times (`negative_time`),
            numbers beyond 31 bits for pixels or 62 bits for times (`out_of_range`), another polarity (`polarity`).
    """
    columns = {name: np.asarray(column) for name, column in (("t", t), ("x", x), ("y", y), ("p", p))}
    check_shapes(columns, source)
    times = _whole(columns["t"], "t", source, 2**62, "Write times as whole microseconds.")
    if times.size and int(times.min()) < 0:
        raise RecordingError(
            f"{source}: time stamp {int(times.min())}; expected 0 or later. Shift the recording's clock.",
            reason="negative_time",
        )
    pixels = [_whole(columns[name], name, source, 2**31 - 1, "Give pixels.").astype(np.int32) for name in "xy"]
    polarity = _whole(columns["p"], "p", source, 2**31 - 1, "Give 0 and 1, or -1 and 1.")
    low, high = (int(polarity.min()), int(polarity.max())) if polarity.size else (0, 0)
    if not -1 <= low <= high <= 1 or (low == -1 and not polarity.all()):
        raise RecordingError(
            f"{source}: polarities {np.unique(polarity)[:5].tolist()}; expected 0 and 1, -1 and 1, or 1 and 2. Write "
            "them as 0 (OFF) and 1 (ON), without what is neither.",
            reason="polarity",
        )
    return Events(times, pixels[0], pixels[1], (polarity > 0).astype(np.uint8))


def check_shapes(columns: Mapping[str, NDArray[Any]], source: str) -> None:
    """Refuse columns that are not four vectors of one length.

    Raises:
        RecordingError: they are not (`shape`).
    """
    if len({column.shape for column in columns.values()}) != 1 or columns["t"].ndim != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise RecordingError(f"{source}: columns of the shapes {shapes}; expected four of one length.", reason="shape")


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


def fitting_orders(table: NDArray[Any], options: TableOptions) -> list[str]:
    """Return the order that the user gives, or the one usual order that the content of a table [N,k] fits, or none."""
    if options.columns:
        return [",".join(options.columns)] if options.positions and len(options.columns) == table.shape[1] else []
    if table.shape[1] == 5:
        return [CELEX] if _celex(table) else []
    if table.shape[1] != 4 or not len(table):
        return []
    columns = [table[:, i] for i in range(4)]
    if not all(np.isfinite(column).all() for column in columns if column.dtype.kind == "f"):
        return []
    whole = [column.dtype.kind != "f" or bool((column == np.floor(column)).all()) for column in columns]
    pixels = [w and column.min() >= 0 and column.max() < MOST_PIXELS for w, column in zip(whole, columns, strict=True)]
    binary = [w and _two_values(column) for w, column in zip(whole, columns, strict=True)]
    ordered = [bool(column[0] >= 0 and (column[1:] >= column[:-1]).all()) for column in columns]
    tests = {"t": ordered, "x": pixels, "y": pixels, "p": binary}
    orders = [order for order in ORDERS if all(tests[c][i] for i, c in enumerate(order.split(",")))]
    if not all(whole):  # only times have fractions
        orders = [order for order in orders if not whole[order.split(",").index("t")]]
    if len(orders) > 1:  # of short recordings; more values than two are no polarity, and the widest column is the time
        widest = int(np.argmax([float(column.max()) - float(column.min()) for column in columns]))
        orders = [order for order in orders if order.split(",")[widest] == "t" and not pixels[widest]]
    return orders if len(orders) == 1 else []


def by_order(table: NDArray[Any], order: str) -> dict[str, NDArray[Any]]:
    """Return the columns of a table by an order such as `x,y,t,p`."""
    return {name: table[:, i] for i, name in enumerate(order.split(",")) if name != LEAVE_OUT}


def _celex(table: NDArray[Any]) -> bool:
    y, x, _, p, t = (table[:, i] for i in range(5))
    if not len(table) or not np.isfinite(table).all():
        return False
    pixels = all((c == np.floor(c)).all() and c.min() >= 0 and c.max() < MOST_PIXELS for c in (x, y))
    return bool(pixels and np.isin(p, (-1, 0, 1)).all() and (t[1:] >= t[:-1]).all() and t[0] >= 0)


def _two_values(column: NDArray[Any]) -> bool:
    """Whether a column holds polarities: 0 and 1, -1 and 1, or 1 and 2."""
    low, high = column.min(), column.max()
    if not -1 <= low <= high <= 2 or high - low > 2:
        return False
    return bool(((column == low) | (column == high)).all()) and (low, high) not in {(-1, 0), (0, 2), (-1, 2)}


def _vector(column: NDArray[Any]) -> NDArray[Any]:
    """[N], also from [N,1] and [1,N]."""
    column = np.asarray(column)
    return column.reshape(-1) if column.ndim == 2 and 1 in column.shape else column


def _whole(column: NDArray[Any], name: str, source: str, largest: int, advice: str) -> NDArray[np.int64]:
    """A column as int64, if it holds whole numbers up to a limit."""
    if column.dtype.kind not in "iufb":
        raise RecordingError(f"{source}: {name} is of type {column.dtype}; expected numbers.", reason="fractional")
    if column.dtype.kind == "f" and not (np.isfinite(column).all() and (column == np.floor(column)).all()):
        raise RecordingError(f"{source}: {name} holds fractions or no numbers. {advice}", reason="fractional")
    if column.size and (column.max() > largest or column.min() < -largest):
        raise RecordingError(
            f"{source}: {name} reaches {column.max()}, beyond {largest}. {advice}", reason="out_of_range"
        )
    return column.astype(np.int64)
