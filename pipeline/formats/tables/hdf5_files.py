"""Events in HDF5 files, wherever they lie: columns in a group, a data set with fields, or a table [N,4].

Known layouts: DSEC (`events/{x,y,p,t}`, time in `t_offset` added), MVSEC (`davis/left/events`, seconds since 1970),
M3ED (`prophesee/left/{x,y,p,t}`), v2e (`events`, [N,4]), E2VID (`events/{xs,ys,ts,ps}`, seconds), Prophesee's
(`CD/events` with fields), and MATLAB files of version 7.3, which are HDF5.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, blame_machine
from spikebridge.pipeline.containers.npy import MAX_BYTES
from spikebridge.pipeline.containers.packed import allowed
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.decoded import Decoded, Facts
from spikebridge.pipeline.formats.tables import ecf
from spikebridge.pipeline.formats.tables.columns import DEFAULT, Candidate, TableOptions, choose, spelled, upright

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


def decode(path: Path, options: TableOptions = DEFAULT) -> Decoded:
    """Decode the events of an HDF5 file.

    Raises:
        RecordingError: damaged, or a column lies in another file (`damaged`), larger than 4 GiB (`too_large`), a filter
            that is not installed (`filter`), no group of columns, or several (`columns`), or as `columns.choose`.
    """
    import h5py

    try:
        _load_filters()
        with h5py.File(path, "r") as file:
            candidates, found = _candidates(file, path), sorted(file)
            decoded = choose(candidates, options, format="HDF5", source=path.name, found=found)
            place = next((c[len("events in ") :] for c in decoded.facts.choices if c.startswith("events in ")), "")
            return _with_facts(decoded, file, place)
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
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _stated_size(file)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        blame_machine(error, path.name)
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise RecordingError(
            f"{path.name}: cannot be read as HDF5 ({error}). Copy it again.", reason="damaged"
        ) from error


def _load_filters() -> None:
    """Make the filters of the optional package known to the HDF5 library, where it is installed."""
    try:
        importlib.import_module(PACKAGE)
    except ImportError:
        return


def _candidates(file: Any, path: Path) -> list[Candidate]:
    """Every group whose data sets have the names of columns, every data set with such fields, every table."""
    import h5py

    found = []
    for place, node in _nodes(file):
        if isinstance(node, h5py.Group):
            names = tuple(str(name) for name in node)
            if len(spelled(names)) >= 2:
                found.append(Candidate(place, names, lambda name, node=node: _load(node, name, path)))  # type: ignore[misc]
        elif ecf.is_packed(node) and not h5py.h5z.filter_avail(ecf.NUMBER):
            unpacked = cache(lambda node=node: ecf.read(_require_small(node, path)))
            found.append(Candidate(place, tuple("txyp"), lambda name, unpacked=unpacked: unpacked()[name]))  # type: ignore[misc]
        elif node.dtype.names:
            found.append(Candidate(place, node.dtype.names, lambda name, node=node: _load(node, name, path)))  # type: ignore[misc]
        elif node.ndim == 2 and 4 in node.shape and node.dtype.kind in "iufb" and max(node.shape) > 4:
            found.append(Candidate(place, None, lambda _, node=node: upright(_load(node, "", path))))  # type: ignore[misc]
    return found


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


def _load(node: Any, name: str, path: Path) -> NDArray[Any]:
    """A column: a data set of a group, a field of a data set, or (no name) a data set."""
    import h5py

    inside = isinstance(node, h5py.Dataset)
    outside = not inside and isinstance(node.get(name, getlink=True), h5py.ExternalLink)
    column = node if inside else None if outside else node[name]
    if column is None or column.is_virtual or column.external:
        raise ValueError(f"{name} lies in another file")
    _check_filters(_require_small(column, path), path)
    return column[name] if inside and name else column[()]


def _require_small(column: Any, path: Path) -> Any:
    """Return a data set that takes no more memory than a recording may."""
    if column.nbytes > (most := min(MAX_BYTES, allowed(path.stat().st_size))):
        raise RecordingError(
            f"{path.name}: {column.nbytes:,} bytes in {column.name}; at most {most:,} are read.", reason="too_large"
        )
    return column


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


def _with_facts(decoded: Decoded, file: Any, place: str) -> Decoded:
    """Add what lies beside the events: the time that all are later by, the sensor's size, triggers."""
    import h5py

    facts, events = decoded.facts, decoded.events
    choices = facts.choices
    around = [node for node in (file.get(place) if place else file, *_above(file, place)) if node is not None]
    offset = next((node[OFFSET] for node in around if isinstance(node, h5py.Group) and OFFSET in node), None)
    if offset is not None and isinstance(offset, h5py.Dataset) and offset.size == 1 and offset.dtype.kind in "iu":
        shift = int(offset[()].reshape(-1)[0]) if offset.ndim else int(offset[()])
        if 0 <= shift < 2**62 and len(events):
            events = Events(events.t + shift, events.x, events.y, events.p)
            choices += (f"{OFFSET} of {shift:,} us added",)
    triggers = file.get("EXT_TRIGGER/events")
    passed_over = dict(facts.passed_over)
    if isinstance(triggers, h5py.Dataset) and triggers.shape:
        passed_over["triggers"] = int(triggers.shape[0])
    size = _stated_size(*around)
    if size and len(events) and not (int(events.x.max()) < size[0] and int(events.y.max()) < size[1]):
        turned = size[::-1]
        size = turned if int(events.x.max()) < turned[0] and int(events.y.max()) < turned[1] else None
    return Decoded(events, Facts(facts.format, size, passed_over, choices, facts.doubts))


def _above(file: Any, place: str) -> Iterator[Any]:
    """The groups that hold a place, the nearest first."""
    while place:
        place = place.rpartition("/")[0]
        yield file[place] if place else file


def _stated_size(*nodes: Any) -> tuple[int, int] | None:
    """(W, H) from attributes: `geometry` (WxH), `sensor_resolution` (H, W), width and height; M3ED's `calib`."""
    import h5py

    for node in nodes:
        attributes = node.attrs
        geometry = attributes.get("geometry")
        if geometry is not None and (match := re.search(r"(\d{1,5})x(\d{1,5})", str(geometry))):
            return int(match[1]), int(match[2])
        pair = np.asarray(attributes.get("sensor_resolution", ())).reshape(-1)
        if len(pair) == 2 and pair.dtype.kind in "iu":
            return int(pair[1]), int(pair[0])
        sides = [np.asarray(attributes.get(name, ())).reshape(-1) for name in ("width", "height")]
        if all(len(side) == 1 and side.dtype.kind in "iu" for side in sides):
            return int(sides[0][0]), int(sides[1][0])
        calibrated = node.get("calib/resolution") if isinstance(node, h5py.Group) else None
        if isinstance(calibrated, h5py.Dataset) and calibrated.shape == (2,) and calibrated.dtype.kind in "iu":
            return int(calibrated[0]), int(calibrated[1])
    return None
