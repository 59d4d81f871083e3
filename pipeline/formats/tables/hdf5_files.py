"""Events in HDF5 files, wherever they lie: columns in a group, a data set with fields, or a table [N,4].

Known layouts: DSEC (`events/{x,y,p,t}`, time in `t_offset` added), MVSEC (`davis/left/events`, seconds since 1970),
M3ED (`prophesee/left/{x,y,p,t}`), v2e (`events`, [N,4]), E2VID (`events/{xs,ys,ts,ps}`, seconds), Prophesee's
(`CD/events` with fields), and MATLAB files of version 7.3, which are HDF5.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import ge
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, blame_machine
from spikebridge.pipeline.containers.npy import MAX_BYTES
from spikebridge.pipeline.containers.packed import allowed
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Facts, Pass, Stream
from spikebridge.pipeline.formats.tables import ecf
from spikebridge.pipeline.formats.tables.choose import choose
from spikebridge.pipeline.formats.tables.columns import (
    BLOCK_ROWS,
    DEFAULT,
    Candidate,
    TableOptions,
    at_once,
    is_table,
    spelled,
    upright,
)
from spikebridge.pipeline.formats.tables.mat_events import counts_from_one, from_zero

PACKAGE = "hdf5plugin"
FILTERS = {
    32001: ("blosc", PACKAGE),
    32026: ("blosc2", PACKAGE),
    32015: ("Zstandard", PACKAGE),
    32004: ("LZ4", PACKAGE),
    32008: ("bitshuffle", PACKAGE),
    32000: ("LZF", PACKAGE),
    307: ("bzip2", PACKAGE),
    ecf.NUMBER: ("Prophesee's ECF", ""),
}
"""Filters by their registered number: name, and the package that brings them."""
EXTRA = "spikebridge[formats]"
MOST_NODES = 20_000
"""Groups and data sets that are looked at."""
OFFSET = "t_offset"
"""Data set beside the group of events (DSEC): microseconds to be added to all times."""
INDEX = "ms_to_idx"
"""Likewise: the first event of every millisecond."""
BESIDE = (OFFSET, INDEX, "ms_map_idx", "EXT_TRIGGER")
"""Names of what belongs to the events of known layouts, and is read, counted or implied."""


def stream(path: Path, options: TableOptions = DEFAULT) -> Stream:
    """Return the events of an HDF5 file.

    Raises:
        RecordingError: damaged, or a column lies in another file (`damaged`), unpacking to far more than a recording
            of its size (`too_large`), a filter that is not installed (`filter`), no group of columns, or several
            (`columns`), or as `columns.choose`.
    """
    with _opened(path) as file:
        candidates, found = _candidates(file, path, options), [name for name in sorted(file) if name not in BESIDE]
        unit = partial(_stated_unit, file)
        events, place = choose(candidates, options, format="HDF5", source=path.name, found=found, unit=unit)
        return _with_facts(from_zero(events) if counts_from_one(place) else events, file, place)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; what the library finds wrong with it is a `RecordingError` (`damaged`)."""
    import h5py

    try:
        _load_filters()
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        blame_machine(error, path.name)
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise RecordingError(
            f"{path.name}: cannot be read as HDF5 ({error}). Copy it again.", reason="damaged"
        ) from error


def sensor_size(path: Path) -> tuple[int, int] | None:
    """Return (W, H) as an attribute of the file states it, or None.

    Raises:
        RecordingError: the file is damaged (`damaged`).
    """
    with _opened(path) as file:
        stated, certain = _stated_size(file)
    if certain or stated is None or stated[0] >= stated[1]:
        return stated
    return stream(path).decoded().facts.sensor_size  # upright, as no sensor is: the events say which side is which


def _load_filters() -> None:
    """Make the filters of the optional package known to the HDF5 library, where it is installed."""
    try:
        importlib.import_module(PACKAGE)
    except ImportError:
        return


def _candidates(file: Any, path: Path, options: TableOptions) -> list[Candidate]:
    """Every group whose data sets have the names of columns, every data set with such fields, every table."""
    import h5py

    found = []
    for place, node in _nodes(file):
        if isinstance(node, h5py.Group):
            names = tuple(str(name) for name in node if name not in BESIDE)
            if len(spelled(names)) >= 2:
                found.append(_Place(path, place).candidate(names))
        elif node.dtype.names:
            found.append(_Place(path, place).candidate(node.dtype.names))
        elif is_table(node, options) and (max(node.shape) > 4 or 0 in node.shape):
            found.append(_Place(path, place).candidate(None))
    return found


class _Place:
    """A group or data set that may hold the events: read from its file in every pass, or kept where it is small."""

    def __init__(self, path: Path, place: str) -> None:
        self.path, self.place = path, place
        self._kept = dict[tuple[str, ...], tuple[NDArray[Any], ...]]()

    def candidate(self, names: tuple[str, ...] | None) -> Candidate:
        """Return the place with the names of its columns."""
        return Candidate(self.place, names, self.blocks, self.length)

    @contextmanager
    def _columns(self, names: Sequence[str]) -> Iterator[tuple[list[Any], bool]]:
        """Open the data sets of columns; say whether they are to be loaded whole."""
        with _opened(self.path) as file:
            node = file[self.place] if self.place else file
            columns = [_column(node, name, self.path) for name in names]
            yield columns, at_once(sum({column.id: column.nbytes for column in columns}.values()))

    def length(self, wanted: Sequence[str]) -> int:
        """Return the number of rows, see `pipeline.formats.tables.columns.Candidate`."""
        with self._columns(wanted) as (columns, together):
            return 0 if together or _needs_ecf(columns[0]) else max(columns[0].shape)

    def blocks(self, wanted: Sequence[str], start: int, stop: int | None) -> Iterator[tuple[NDArray[Any], ...]]:
        """Yield columns in blocks of rows, see `pipeline.formats.tables.columns.Blocks`."""
        names = tuple(wanted)
        if names not in self._kept:
            with self._columns(names) as (columns, together):
                if not together:
                    yield from _in_blocks(columns, names, start, stop)
                    return
                self._kept[names] = _whole(columns, names)
        yield self._kept[names]


def _column(node: Any, name: str, path: Path) -> Any:
    """Return the data set of a column that a group holds, or is a field of, or (no name) is all of.

    Raises:
        ValueError: it lies in another file.
        RecordingError: too much to be read (`too_large`), or packed by a filter that is not installed (`filter`).
    """
    import h5py

    inside = isinstance(node, h5py.Dataset)
    outside = not inside and isinstance(node.get(name, getlink=True), h5py.ExternalLink)
    column = node if inside else None if outside else node[name]
    if column is None or column.is_virtual or column.external:
        raise ValueError(f"{name} lies in another file")
    if column.nbytes > (most := allowed(path.stat().st_size)):
        raise RecordingError(
            f"{path.name}: {column.nbytes:,} bytes in {column.name}; at most {most:,} are read.", reason="too_large"
        )
    if column.chunks and (size := math.prod(column.chunks) * column.dtype.itemsize) > MAX_BYTES:
        raise RecordingError(
            f"{path.name}: {column.name} lies in pieces of {size:,} bytes; at most {MAX_BYTES:,} are read at once. "
            "Write it again in smaller chunks.",
            reason="too_large",
        )
    if not _needs_ecf(column):
        _check_filters(column, path)
    return column


def _needs_ecf(column: Any) -> bool:
    """Return whether a data set is packed by ECF, and the HDF5 library cannot unpack it."""
    import h5py

    return ecf.is_packed(column) and not h5py.h5z.filter_avail(ecf.NUMBER)


def _whole(columns: Sequence[Any], names: Sequence[str]) -> tuple[NDArray[Any], ...]:
    """Load columns whole: data sets, or a field of each."""
    if _needs_ecf(columns[0]):
        parts = [tuple(chunk[name] for name in names) for chunk in ecf.chunks(columns[0])]
        return tuple(np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    loaded = [
        np.empty(0, column.dtype) if column.shape is None else column[name] if column.dtype.names else column[()]
        for column, name in zip(columns, names, strict=True)
    ]
    return tuple(loaded) if names[0] else (upright(loaded[0]),)


def _in_blocks(
    columns: Sequence[Any], names: Sequence[str], start: int, stop: int | None
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield columns in blocks of whole chunks of the file."""
    first = columns[0]
    if _needs_ecf(first):
        for chunk in ecf.chunks(first):
            yield tuple(chunk[name] for name in names)
        return
    axes = [0 if names[0] and column.ndim == 1 else int(np.argmax(column.shape)) for column in columns]
    counts = {name: column.shape[axis] for name, column, axis in zip(names, columns, axes, strict=True)}
    if len(set(counts.values())) > 1 or any(names[0] and column.size > max(column.shape) for column in columns):
        yield tuple(np.broadcast_to(np.empty((), column.dtype), column.shape) for column in columns)  # refused as such
        return
    most = max(column.chunks[axis] if column.chunks else 1 for column, axis in zip(columns, axes, strict=True))
    step = -(-BLOCK_ROWS // most) * most
    stop = first.shape[axes[0]] if stop is None else stop
    for begin in range(start - start % step, stop, step):
        rows = slice(max(start, begin), min(stop, begin + step))
        if first.dtype.names:
            block = first[rows]
            yield tuple(block[name] for name in names)
        else:
            parts = [c[(slice(None),) * axis + (rows,)] for c, axis in zip(columns, axes, strict=True)]
            yield tuple(parts) if names[0] else (parts[0].T if axes[0] else parts[0],)


def _nodes(file: Any) -> Iterator[tuple[str, Any]]:
    """Groups and data sets of a file, each once, those near the top first; links to other files are not followed."""
    import h5py

    level, seen, count = [("", file)], set(), 0
    while level:
        below = []
        for place, node in level:
            count += 1
            if count > MOST_NODES:
                return
            yield place, node
            if not isinstance(node, h5py.Group):
                continue
            for name in node:
                if isinstance(node.get(name, getlink=True), h5py.ExternalLink):
                    continue
                child = node.get(name)
                if child is None or not isinstance(child, h5py.Group | h5py.Dataset):
                    continue
                address = h5py.h5o.get_info(child.id).addr
                if address not in seen:
                    seen.add(address)
                    below.append((f"{place}/{name}".strip("/"), child))
        level = below


def _check_filters(column: Any, path: Path) -> None:
    """Refuse a data set whose numbers no installed filter unpacks, and say what to install."""
    import h5py

    plan = column.id.get_create_plist()
    for number in (plan.get_filter(i)[0] for i in range(plan.get_nfilters())):
        if h5py.h5z.filter_avail(number):
            continue
        name, package = FILTERS.get(number, (f"number {number}", ""))
        if package:
            advice = f'Install it: pip install {package}, or pip install "{EXTRA}"'
        elif number == ecf.NUMBER:
            advice = (
                "Data sets of fields x, y, p, t are read without it. For others, OpenEB and the Metavision SDK have "
                "it: set HDF5_PLUGIN_PATH to the folder of its plugin"
            )
        else:
            advice = "Install a plugin for it, or write the file again without it"
        raise RecordingError(
            f"{path.name}: {column.name} is packed with the HDF5 filter {name}, which is not installed. {advice}.",
            reason="filter",
        )


def _with_facts(events: Stream, file: Any, place: str) -> Stream:
    """Add what lies beside the events: the time that all are later by, the sensor's size, triggers."""
    import h5py

    around = _around(file, place)
    offset = next((node[OFFSET] for node in around if isinstance(node, h5py.Group) and OFFSET in node), None)
    shift = None
    if offset is not None and isinstance(offset, h5py.Dataset) and offset.size == 1 and offset.dtype.kind in "iu":
        shift = int(offset[()].reshape(-1)[0]) if offset.ndim else int(offset[()])
    shift = shift if shift is not None and 0 <= shift < 2**62 else None
    said = (f"{OFFSET} of {shift:,} us added",) if shift is not None else ()
    triggers = file.get("EXT_TRIGGER/events")
    beside = {"triggers": int(triggers.shape[0])} if isinstance(triggers, h5py.Dataset) and triggers.shape else {}
    stated, certain = _stated_size(*around)

    def passes(chunks: Pass) -> Pass:
        reach = (0, 0)
        while True:
            try:
                chunk = next(chunks)
            except StopIteration as end:
                facts: Facts = end.value
                break
            assert isinstance(chunk, Events)
            if len(chunk):
                reach = (max(reach[0], int(chunk.x.max()) + 1), max(reach[1], int(chunk.y.max()) + 1))
            yield replace(chunk, t=chunk.t + shift) if shift is not None else chunk
        sizes = () if stated is None else (stated,) if certain else (stated, stated[::-1])
        size = next((size for size in sizes if all(map(ge, size, reach))), None)
        found: tuple[str, ...] = said
        doubts = facts.doubts
        if size and size != stated:
            found += (f"sensor_resolution as width and height: events reach {reach[0]}x{reach[1]}",)
        elif stated and not size:
            doubts += (
                f"the file states a sensor of {stated[0]}x{stated[1]} pixels, and its events reach "
                f"{reach[0]}x{reach[1]}: not believed; --sensor WxH states it",
            )
        passed_over = {**facts.passed_over, **beside}
        return replace(
            facts, sensor_size=size, passed_over=passed_over, choices=(*facts.choices, *found), doubts=doubts
        )

    def window(window_us: tuple[int, ...]) -> Stream | None:
        part = events.window(window_us)
        return Stream(lambda: passes(part.passes())) if part else None

    return Stream(lambda: passes(events.passes()), window=window)


def _stated_unit(file: Any, place: str) -> str:
    """Return `us` for columns of DSEC: the table of milliseconds is as long as times in microseconds say."""
    import h5py

    index: Any = next((n[INDEX] for n in _around(file, place) if isinstance(n, h5py.Group) and INDEX in n), None)
    t: Any = file[place].get("t") if place and isinstance(file[place], h5py.Group) else None
    if not all(isinstance(one, h5py.Dataset) and one.ndim == 1 and one.size for one in (index, t)):
        return ""
    return "us" if t.dtype.kind in "iu" and abs(int(t[-1]) // 1000 + 1 - index.size) <= 1 else ""


def _around(file: Any, place: str) -> list[Any]:
    """Return what may say something about a place: it and the groups that hold it, the nearest first."""
    return [node for node in (file.get(place) if place else file, *_above(file, place)) if node is not None]


def _above(file: Any, place: str) -> Iterator[Any]:
    """The groups that hold a place, the nearest first."""
    while place:
        place = place.rpartition("/")[0]
        yield file[place] if place else file


def _stated_size(*nodes: Any) -> tuple[tuple[int, int] | None, bool]:
    """(W, H) from attributes: `geometry` (WxH), `sensor_resolution` (H, W), width and height; M3ED's `calib`.

    Also whether it is certain which side is which: some programs write `sensor_resolution` the other way round.
    """
    import h5py

    for node in nodes:
        attributes = node.attrs
        geometry = attributes.get("geometry")
        if geometry is not None and (match := re.search(r"(\d{1,5})x(\d{1,5})", str(geometry))):
            return (int(match[1]), int(match[2])), True
        pair = np.asarray(attributes.get("sensor_resolution", ())).reshape(-1)
        if len(pair) == 2 and pair.dtype.kind in "iu":
            return (int(pair[1]), int(pair[0])), False
        sides = [np.asarray(attributes.get(name, ())).reshape(-1) for name in ("width", "height")]
        if all(len(side) == 1 and side.dtype.kind in "iu" for side in sides):
            return (int(sides[0][0]), int(sides[1][0])), True
        calibrated = node.get("calib/resolution") if isinstance(node, h5py.Group) else None
        if isinstance(calibrated, h5py.Dataset) and calibrated.shape == (2,) and calibrated.dtype.kind in "iu":
            return (int(calibrated[0]), int(calibrated[1])), True
    return None, False
