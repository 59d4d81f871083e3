"""The one place of a file that holds the events, and its rows as a recording.

Axes: N events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, shorten
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Facts, Pass, Stream
from spikebridge.pipeline.formats.seek import find_rows
from spikebridge.pipeline.formats.tables.columns import (
    CELEX,
    ORDERS,
    SPELLINGS,
    Candidate,
    TableOptions,
    by_order,
    fitting_orders,
    spelled,
    unit_of_name,
)
from spikebridge.pipeline.formats.tables.convert import check_shapes, from_columns, no_polarities, vector, whole_pixels
from spikebridge.pipeline.formats.tables.survey import Numbers, Pixels
from spikebridge.pipeline.formats.time_unit import (
    coarse_doubt,
    doubts,
    infer_unit,
    multiples_of_1000,
    to_microseconds,
)

MOST_NAMED = 8
"""Of what is left out."""


def choose(
    candidates: Sequence[Candidate],
    options: TableOptions,
    *,
    format: str,
    source: str,
    found: Collection[str],
    sensor_size: tuple[int, int] | None = None,
    unit: Callable[[str], str] = lambda place: "",
) -> tuple[Stream, str]:
    """Return the events of the one candidate that fits, and its place.

    Columns with names come before tables without; of these, those count whose content fits a usual order.

    Args:
        candidates: in the order of the file.
        options: of the user.
        format: for the facts.
        source: file name for messages.
        found: names in the file, for the message where nothing fits.
        sensor_size: (W, H) as the file states it.
        unit: returns the unit of time that the file states for a place; empty where it states none.

    Raises:
        RecordingError: none fits, or several do (`columns`), or as `_survey`; in a pass, as
            `pipeline.formats.tables.convert`.
    """
    inside = [one for one in candidates if options.group in ("", one.place.strip("/"))]
    named = [one for one in inside if one.known(options)]
    tables = {} if named else {i: _numbers_of(one, options) for i, one in enumerate(inside) if one.names is None}
    orders = {i: fitting_orders(numbers, options) for i, numbers in tables.items()}
    fitting = named or [inside[i] for i, fit in orders.items() if fit]
    if len(fitting) == 1:
        order = next((fit[0] for fit in orders.values() if fit), "")
        place = fitting[0].place
        facts = Facts(format, sensor_size, choices=_left_out(fitting[0], options, found))
        return _stream(fitting[0], order, options, unit(place), facts, source), place
    if fitting:
        places = ", ".join(one.place or "the top" for one in fitting[:8])
        raise RecordingError(
            f"{source}: {len(fitting)} places hold events: {places}. Say which with --group, for example --group "
            f"{fitting[0].place}.",
            reason="columns",
        )
    if len(empty := [i for i, numbers in tables.items() if not any(column.count for column in numbers)]) == 1:
        raise RecordingError(f"{source}: no events in {inside[empty[0]].place or 'its table'}.", reason="empty")
    if tables:
        first, numbers = next(iter(tables.items()))
        raise _no_order(inside[first].place, len(numbers), source)
    if options.group and not inside:
        places = ", ".join(sorted({one.place for one in candidates if one.place})[:8]) or "none"
        raise RecordingError(f"{source}: no group {options.group} with columns; there are: {places}.", reason="columns")
    raise _no_columns(inside, options, source, found)


def _left_out(one: Candidate, options: TableOptions, found: Collection[str]) -> tuple[str, ...]:
    """Return what else a file holds beside its events, by name: columns of the same place, and other places."""
    known = tuple((one.known(options) or {}).values())
    used = [one.place, *(f"{one.place}{between}{name}" if one.place else name for name in known for between in "/.")]
    others = [name or "a column without a name" for name in one.names or () if name not in known]
    others += [
        name for name in found if name and not any(u == name or u.startswith((f"{name}/", f"{name}.")) for u in used)
    ]
    inner = {f"{one.place}{between}{name}" for name in one.names or () for between in "/."}
    names = [name for name in dict.fromkeys(others) if name not in inner]
    return (f"left out: {shorten(names, most=MOST_NAMED)}",) if names else ()


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


def _numbers_of(table: Candidate, options: TableOptions) -> list[Numbers]:
    """Look at all of a table without names, column by column; at its beginning where the user says what they are."""
    numbers = list[Numbers]()
    for (block,) in table.blocks(("",), 0, None):
        numbers = numbers or [Numbers() for _ in range(block.shape[1])]
        for column, found in zip(block.T, numbers, strict=True):
            found.add(column)
        if options.columns:
            break
    return numbers


def _stream(one: Candidate, order: str, options: TableOptions, stated: str, facts: Facts, source: str) -> Stream:
    """Return the events of a candidate.

    `order` is that of a table without names, `stated` the unit of time as the file states it, `facts` is known so far.
    """
    known = one.known(options)
    names = tuple(known.values()) if known else ("",)
    if known:
        renamed = [f"{column} = {name}" for column, name in known.items() if column != name]
        choices = [", ".join(renamed)] if renamed else []
    else:
        choices = [f"columns {order}" + ("" if options.columns else " by their content")]
    if one.place:
        choices.insert(0, f"events in {one.place}")
    unread = {"rows without a polarity": 0} if order == CELEX and not options.columns else {}
    unit = options.time_unit or unit_of_name(known["t"] if known else "") or stated

    def rows(start: int = 0, stop: int | None = None) -> Rows:
        unread.update(dict.fromkeys(unread, 0))
        for block in one.blocks(names, start, stop):
            columns = dict(zip("txyp", block, strict=True)) if known else by_order(block[0], order)
            columns = {name: vector(column) for name, column in columns.items()}
            check_shapes(columns, source)
            for what in unread:  # p = 0 says that a pixel was read, not that it changed
                changed = columns["p"] != 0
                unread[what] += len(changed) - int(np.count_nonzero(changed))
                columns = {name: column[changed] for name, column in columns.items()}
            yield columns

    surveyed = cache(lambda: _survey(rows, unit, source))

    def passes() -> Pass:
        taken = surveyed()
        for columns in rows():
            yield _events_of(columns, taken, source)
        return replace(
            facts, passed_over=dict(unread), choices=(*choices, *taken.choices, *facts.choices), doubts=taken.doubts
        )

    def window(window_us: tuple[int, ...]) -> Stream | None:
        """A part of a place tells no unit, and no column of gaps."""
        count = one.length(names) if unit and not unread else 0

        def times(row: int) -> NDArray[Any]:
            return next(rows(row, row + 1))["t"]

        found = find_rows(lambda row: int(to_microseconds(times(row), unit, source=source)[0]), count, window_us)
        if found is None:
            return None
        ends = Numbers.of(np.concatenate([times(0), times(count - 1)]))
        taken = _taken(unit, _counts_from_one(rows()), coarse_doubt(ends, unit))
        parts = [(0, 1), (max(found[0], 1), found[1])]

        def within() -> Pass:
            for start, stop in parts:
                for columns in rows(start, stop) if start < stop else ():
                    yield _events_of(columns, taken, source)
            not_read = count - sum(max(0, stop - start) for start, stop in parts)
            return replace(
                facts, choices=(*choices, *taken.choices, *facts.choices), doubts=taken.doubts, not_read=not_read
            )

        return Stream(within)

    return Stream(passes, window=window)


Rows = Iterator[dict[str, NDArray[Any]]]
"""t, x, y and p [N], in blocks."""


class Taken(NamedTuple):
    """How the numbers of columns are taken."""

    unit: str
    """Of time."""
    from_one: bool
    """Polarity is 1 and 2, 1 is OFF."""
    choices: tuple[str, ...]
    """What was decided."""
    doubts: tuple[str, ...]
    """What is doubtful."""


def _taken(unit: str, from_one: bool, found: tuple[str, ...]) -> Taken:
    said = (*((f"times in {unit}",) * (unit != "us")), *(("polarity 1 is OFF, 2 is ON",) * from_one))
    return Taken(unit, from_one, said, found)


def _counts_from_one(rows: Rows) -> bool:
    """Return whether polarity is 1 and 2; the first number that is not 1 says it."""
    p = Numbers()
    for columns in rows:
        p.add(columns["p"])
        if p.others or p.polarities - {1}:
            break
    return p.dtype.kind in "iuf" and not p.others and 2 in p.polarities <= {1, 2}


def _survey(rows: Callable[[], Rows], known: str, source: str) -> Taken:
    """Look at all columns of a recording.

    Args:
        rows: begins a pass over them.
        known: unit of time that the user or the file names; empty where custom decides.
        source: file name for messages.

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
    from_one = p.dtype.kind in "iuf" and not p.others and 2 in p.polarities <= {1, 2}
    if not p.others and ({-1, 0} <= p.polarities or (2 in p.polarities and not from_one)):  # no block need show both
        raise no_polarities(sorted(p.polarities), source)
    found = coarse_doubt(t, unit)
    if not known and t.dtype.kind in "iufb" and t.count:
        least, most = to_microseconds(t.extremes, unit, source=source).tolist()
        found += doubts(
            t.count,
            most - least,
            unit=unit,
            active_pixels=pixels.count,
            coarse=lambda: multiples_of_1000(to_microseconds(c["t"], unit, source=source) for c in rows()),
        )
    return _taken(unit, from_one, found)


def _events_of(columns: Mapping[str, NDArray[Any]], taken: Taken, source: str) -> Events:
    """Bring columns [N] into the project's types."""
    t, x, y, p = (columns[name] for name in "txyp")
    times = to_microseconds(t, taken.unit, source=source) if t.dtype.kind in "iufb" else t  # refused below
    return from_columns(times, x, y, p - 1 if taken.from_one else p, source=source)
