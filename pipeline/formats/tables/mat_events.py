"""Events from the variables of MATLAB files: vectors, the structure `TD`, a table [N,4], or TET's table `out1`."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.containers import mat
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Decoded, Facts, Pass, Stream
from spikebridge.pipeline.formats.tables.choose import choose
from spikebridge.pipeline.formats.tables.columns import (
    DEFAULT,
    Candidate,
    TableOptions,
    is_table,
    upright,
)
from spikebridge.pipeline.formats.tables.convert import from_columns

TABLE = "out1"
"""Variable of TET's files."""
TABLE_COLUMNS = {6: (0, 3, 4, 5), 4: (0, 1, 2, 3)}
"""Columns of t, x, y, p by the number of columns."""
ONE_BASED = "TD"
"""Structure of the ATIS tools, in capitals, whose pixels count from 1."""


def decode(path: Path, options: TableOptions = DEFAULT) -> Decoded:
    """Decode a file: the table `out1`, vectors or fields of a structure with the usual names, or a table [N,4].

    Pixels of the structure `TD` count from 1, unless one is 0.

    Raises:
        RecordingError: neither is there, or several (`columns`), or as `decode_table`, `pipeline.containers.mat` and
            `columns.choose`.
    """
    data = path.read_bytes()
    names = mat.names(data, source=path.name)
    if TABLE in names and options == DEFAULT:
        return Decoded(decode_table(data, source=path.name), Facts("MATLAB", choices=(f"events in {TABLE}",)))
    groups: dict[str, list[str]] = {}
    for name in names:
        group, _, column = name.rpartition(".")
        groups.setdefault(group, []).append(column)

    def load(name: str) -> NDArray[Any]:
        return mat.read(data, [name], source=path.name)[name]

    candidates = [
        Candidate.at_once(group, tuple(columns), lambda name, group=group: load(f"{group}.{name}" if group else name))  # type: ignore[misc]
        for group, columns in groups.items()
    ]
    if not any(one.known(options) for one in candidates):
        for name in names:
            try:
                table = load(name)
            except RecordingError as error:
                if error.reason == "not_numeric":
                    continue
                raise
            if is_table(table, options) and (max(table.shape) > 4 or not table.size):
                candidates.append(Candidate.at_once(name, None, lambda _, table=table: upright(table)))  # type: ignore[misc]
    stream, place = choose(candidates, options, format="MATLAB", source=path.name, found=names)
    return (from_zero(stream) if counts_from_one(place) else stream).decoded()


def counts_from_one(place: str) -> bool:
    """Return whether a place in a file is the structure `TD`, of any case, also inside other structures."""
    return re.split(r"[./]", place)[-1].upper() == ONE_BASED


def from_zero(stream: Stream) -> Stream:
    """Return the events of the structure `TD` with pixels that count from 0; unchanged where one of them is 0."""

    @cache
    def step() -> int:
        lowest = [min(int(c.x.min()), int(c.y.min())) for c in stream.passes() if isinstance(c, Events) and len(c)]
        return int(min(lowest, default=0) >= 1)

    def passes() -> Pass:
        by, chunks = np.int32(step()), stream.passes()
        while True:
            try:
                chunk = next(chunks)
            except StopIteration as end:
                facts: Facts = end.value
                break
            assert isinstance(chunk, Events)
            yield replace(chunk, x=chunk.x - by, y=chunk.y - by)
        said = (f"pixels of {ONE_BASED} count from 1",) * int(by)
        return replace(facts, choices=(*facts.choices, *said))

    return Stream(passes, likely=stream.likely)


def decode_table(data: bytes, *, source: str) -> Events:
    """Decode the variable `out1`, an array [N,6] with t, 0, -1, x, y, p or [N,4] with t, x, y, p.

    Raises:
        RecordingError: no events (`empty`), another table (`damaged`), or as `pipeline.containers.mat`.

    Source: Deng et al. 2022, TET, public implementation.
    """
    table = mat.read(data, (TABLE,), source=source)[TABLE]
    if not table.size:
        raise RecordingError(f"{source}: no events; expected at least one.", reason="empty")
    if table.ndim != 2 or table.shape[1] not in TABLE_COLUMNS:
        raise RecordingError(
            f"{source}: {TABLE} has the shape {table.shape}; expected 6 columns (t, 0, -1, x, y, p) or 4 (t, x, y, p).",
            reason="damaged",
        )
    if table.shape[1] == 6 and ((table[:, 1] != 0).any() or (table[:, 2] != -1).any()):
        raise RecordingError(
            f"{source}: columns 2 and 3 of {TABLE} are not 0 and -1 throughout; expected t, 0, -1, x, y, p.",
            reason="damaged",
        )
    t, x, y, p = (table[:, column] for column in TABLE_COLUMNS[table.shape[1]])
    return from_vectors(t, x, y, p, source=source)


def decode_upturned(path: Path, *, sensor_size: tuple[int, int]) -> Events:
    """Decode the vectors ts, x, y and pol of a file whose rows count from the bottom of a sensor of (W, H) pixels.

    Raises:
        RecordingError: rows beyond the sensor (`out_of_range`), or as `from_vectors` and `pipeline.containers.mat`.

    Source: the layout of Bi et al. 2019 (ASL-DVS, UCF101-DVS, HMDB51-DVS), as their readers turn it.
    """
    columns = mat.read(path.read_bytes(), ("ts", "x", "y", "pol"), source=path.name)
    events = from_vectors(columns["ts"], columns["x"], columns["y"], columns["pol"], source=path.name)
    if len(events) and not 0 <= int(events.y.min()) <= int(events.y.max()) < sensor_size[1]:
        raise RecordingError(
            f"{path.name}: rows {int(events.y.min())} to {int(events.y.max())} on a sensor of "
            f"{sensor_size[0]}x{sensor_size[1]} pixels. Is this another camera?",
            reason="out_of_range",
        )
    return replace(events, y=np.int32(sensor_size[1] - 1) - events.y)


def from_vectors(t: NDArray[Any], x: NDArray[Any], y: NDArray[Any], p: NDArray[Any], *, source: str) -> Events:
    """Bring vectors of any numeric type, in rows or columns, into the project's types; polarity -1 becomes 0.

    Args:
        t: microseconds, one number an event.
        x: pixels.
        y: pixels.
        p: -1 or 0 for OFF, 1 for ON.
        source: file name for messages.

    Returns:
        The events as stored: not shifted, sorted or cut. No events where the vectors are empty.

    Raises:
        RecordingError: no vectors of one length (`damaged`), or as `columns.from_columns`: fractions, negative times,
            numbers out of all range, other polarities.
    """
    vectors = (t, x, y, p)
    if len({v.size for v in vectors}) > 1 or any(max(v.shape, default=0) != v.size for v in vectors):
        shapes = ", ".join(f"{name} {v.shape}" for name, v in zip("txyp", vectors, strict=True))
        raise mat.damaged(source, f"vectors {shapes}; expected one number an event in each")
    return from_columns(*(v.reshape(-1) for v in vectors), source=source)
