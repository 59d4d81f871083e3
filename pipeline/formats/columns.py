"""Events as named columns: HDF5 files, `.npz` archives, and structured arrays in `.npy`, `.npz` or HDF5.

Axes: N events. Columns are found by their usual names; times must be whole microseconds, so nothing is guessed from
seconds or nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.containers.npy import MAX_BYTES, read_npy, read_npz
from spikebridge.pipeline.containers.packed import allowed
from spikebridge.pipeline.events.arrays import Events

SPELLINGS = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
"""Names of the columns, in lower case; the first that is there counts."""
GROUPS = ("", "events", "CD", "CD/events", "cd", "dvs")
"""Where the columns, or an array with fields of these names, lie in an HDF5 file."""


def read_numpy(path: Path) -> Events:
    """Read events from an `.npy` file with fields or an `.npz` file of columns or with one array with fields.

    Raises:
        RecordingError: columns are missing (`columns`), or as `pipeline.containers.npy` and `from_columns`.
    """
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
        return _from_names(array.dtype.names or (), array.__getitem__, path.name)
    arrays = read_npz(path)
    fields = [array for array in arrays.values() if array.dtype.names]
    if len(fields) == 1 and len(arrays) == 1:
        return _from_names(fields[0].dtype.names or (), fields[0].__getitem__, path.name)
    return _from_names(arrays, arrays.__getitem__, path.name)


def read_hdf5(path: Path) -> Events:
    """Read events from an HDF5 file.

    Columns are data sets of the usual names at its top, in `events` or in `CD`, or the fields of one data set there.

    Raises:
        RecordingError: damaged, or a column lies in another file (`damaged`), larger than 4 GiB (`too_large`), columns
            missing (`columns`), or as `from_columns`.
    """
    import h5py

    def load(node: Any, name: str) -> NDArray[Any]:
        outside = not isinstance(node, h5py.Dataset) and isinstance(node.get(name, getlink=True), h5py.ExternalLink)
        column = node if isinstance(node, h5py.Dataset) else None if outside else node[name]
        if column is None or column.is_virtual or column.external:
            raise ValueError(f"{name} lies in another file")
        if column.nbytes > (most := min(MAX_BYTES, allowed(path.stat().st_size))):
            raise RecordingError(
                f"{path.name}: {column.nbytes:,} bytes in {column.name}; at most {most:,} are read.",
                reason="too_large",
            )
        return column[name] if isinstance(node, h5py.Dataset) else column[()]

    try:
        with h5py.File(path, "r") as file:
            for group in GROUPS:
                node = file[group] if group and group in file else file if not group else None
                names = node.dtype.names or () if isinstance(node, h5py.Dataset) else node or ()
                if node is not None and spelled(names).keys() == SPELLINGS.keys():
                    return _from_names(names, lambda name, node=node: load(node, name), path.name)  # type: ignore[misc]
            found = sorted(file)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise RecordingError(
            f"{path.name}: cannot be read as HDF5 ({error}). Copy it again.", reason="damaged"
        ) from error
    return _from_names(found, found.index, path.name)


def from_columns(t: Any, x: Any, y: Any, p: Any, *, source: str) -> Events:
    """Bring columns of any numeric type into the project's types.

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
    if len({column.shape for column in columns.values()}) != 1 or columns["t"].ndim != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise RecordingError(f"{source}: columns of the shapes {shapes}; expected four of one length.", reason="shape")
    times = _whole(columns["t"], "t", source, 2**62, "Write times as whole microseconds.")
    if times.size and int(times.min()) < 0:
        raise RecordingError(
            f"{source}: time stamp {int(times.min())}; expected 0 or later. Shift the recording's clock.",
            reason="negative_time",
        )
    pixels = [_whole(columns[name], name, source, 2**31 - 1, "Give pixels.").astype(np.int32) for name in "xy"]
    polarity = _whole(columns["p"], "p", source, 2**31 - 1, "Give 0 and 1, or -1 and 1.")
    values = set(np.unique(polarity).tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise RecordingError(
            f"{source}: polarities {sorted(values)[:5]}; expected 0 and 1, or -1 and 1.", reason="polarity"
        )
    return Events(times, pixels[0], pixels[1], (polarity > 0).astype(np.uint8))


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


def spelled(names: Collection[str]) -> dict[str, str]:
    """Which of the names is which column."""
    lower = {name.lower(): name for name in names}
    found = {c: [lower[s] for s in spellings if s in lower] for c, spellings in SPELLINGS.items()}
    return {column: matches[0] for column, matches in found.items() if matches}


def _from_names(names: Collection[str], load: Callable[[str], Any], source: str) -> Events:
    known = spelled(names)
    if missing := [column for column in SPELLINGS if column not in known]:
        raise RecordingError(
            f"{source}: no column {', '.join(missing)} among {', '.join(map(str, names)) or 'no names'}; expected t, "
            "x, y and p (or ts, timestamps, polarity and the like).",
            reason="columns",
        )
    return from_columns(*(load(known[column]) for column in "txyp"), source=source)
