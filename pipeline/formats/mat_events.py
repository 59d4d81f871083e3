"""Events from the variables of MATLAB files: one table as TET's scripts write it, or a vector for each column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.containers import mat
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.columns import from_columns, spelled

TABLE = "out1"
"""Variable of TET's files."""
TABLE_COLUMNS = {6: (0, 3, 4, 5), 4: (0, 1, 2, 3)}
"""Columns of t, x, y, p by the number of columns."""


def read(path: Path) -> Events:
    """Read a file: the table `out1`, or the vectors t, x, y, p, whose names may be spelled as in other formats.

    Raises:
        RecordingError: neither is there (`columns`), or as `decode_table` and `pipeline.containers.mat`.
    """
    data = path.read_bytes()
    names = mat.names(data, source=path.name)
    if TABLE in names:
        return decode_table(data, source=path.name)
    found = spelled(names)
    if missing := [column for column in "txyp" if column not in found]:
        raise RecordingError(
            f"{path.name}: no variable {', '.join(missing)} among {', '.join(names[:8]) or 'none'}; expected vectors t "
            f"(or ts), x, y and p, or a table {TABLE}.",
            reason="columns",
        )
    columns = mat.read(data, list(found.values()), source=path.name)
    return from_vectors(*(columns[found[column]] for column in "txyp"), source=path.name)


def decode_table(data: bytes, *, source: str) -> Events:
    """Events from the variable `out1`, an array [N,6] with t, 0, -1, x, y, p or [N,4] with t, x, y, p.

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


def from_vectors(t: NDArray[Any], x: NDArray[Any], y: NDArray[Any], p: NDArray[Any], *, source: str) -> Events:
    """Events from vectors of any numeric type, in rows or columns; polarity -1 becomes 0.

    Args:
        t: microseconds, one number an event.
        x: pixels.
        y: pixels.
        p: -1 or 0 for OFF, 1 for ON.
        source: file name for messages.

    Returns:
        The events as stored: not shifted, sorted or cut. No events where the vectors are empty.

    Raises:
        RecordingError: no vectors of one length (`damaged`), or as `pipeline.formats.columns.from_columns`: fractions,
            negative times, numbers out of all range, other polarities.
    """
    vectors = (t, x, y, p)
    if len({v.size for v in vectors}) > 1 or any(max(v.shape, default=0) != v.size for v in vectors):
        shapes = ", ".join(f"{name} {v.shape}" for name, v in zip("txyp", vectors, strict=True))
        raise mat.damaged(source, f"vectors {shapes}; expected one number an event in each")
    return from_columns(*(v.reshape(-1) for v in vectors), source=source)
