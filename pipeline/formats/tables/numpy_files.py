"""Events in `.npy` and `.npz` files: columns of usual names, an array with fields, or a table [N,4]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.containers.npy import (
    MOST_COLUMNS,
    StoredArray,
    pickled,
    read_npy,
    read_npz,
    stored_npy,
    stored_npz,
    unpacked_bytes,
)
from spikebridge.pipeline.formats.decoded import Stream
from spikebridge.pipeline.formats.tables.choose import choose
from spikebridge.pipeline.formats.tables.columns import (
    BLOCK_ROWS,
    DEFAULT,
    Candidate,
    TableOptions,
    at_once,
    is_table,
    upright,
)

Arrays = Mapping[str, NDArray[Any] | StoredArray]


def stream_npy(path: Path, options: TableOptions = DEFAULT) -> Stream:
    """Return the events of an `.npy` file: an array with fields, or a table [N,4].

    Raises:
        RecordingError: neither is there (`columns`), or as `pipeline.containers.npy` and `columns.choose`.
    """
    array = read_npy(path) if at_once(path.stat().st_size) else stored_npy(path)
    candidates = _candidates("", array, options, alone=True)
    return choose(candidates, options, format="npy", source=path.name, found=array.dtype.names or ())[0]


def stream_npz(path: Path, options: TableOptions = DEFAULT, *, content: bytes | None = None) -> Stream:
    """Return the events of an `.npz` file: columns, an array with fields, or a table [N,4]; others are passed over.

    `content` holds its bytes where it lies inside another file; `path` then only names it.

    Raises:
        RecordingError: no such arrays, or several (`columns`), none but Python objects (`pickle`), or as
            `pipeline.containers.npy` and `columns.choose`.
    """
    objects, others = list[str](), list[str]()
    if content is not None or at_once(unpacked_bytes(path)):
        arrays: Arrays = read_npz(path, objects=objects, others=others, content=content)
    else:
        arrays = stored_npz(path, objects=objects, others=others)
    groups: dict[str, dict[str, str]] = {}
    for name in arrays:
        group, _, column = name.rpartition("/")
        groups.setdefault(group, {})[column] = name
    candidates = [_group(place, columns, arrays) for place, columns in groups.items()]
    candidates += [one for name, array in arrays.items() for one in _candidates(name, array, options)]
    found = [*arrays, *objects, *others]
    try:
        return choose(candidates, options, format="npz", source=path.name, found=found)[0]
    except RecordingError as error:
        if objects and error.reason == "columns":
            raise pickled(f"{path.name}, array {objects[0]}") from error
        raise


def _group(place: str, columns: dict[str, str], arrays: Arrays) -> Candidate:
    """Return the arrays of a common prefix as named columns."""

    def blocks(wanted: Sequence[str], start: int, stop: int | None) -> Iterator[tuple[NDArray[Any], ...]]:
        return zip_longest(*(_blocks(arrays[columns[name]], start, stop) for name in wanted), fillvalue=np.empty(0))

    def length(wanted: Sequence[str]) -> int:
        lengths = {_length(arrays[columns[name]]) for name in wanted}
        return lengths.pop() if len(lengths) == 1 else 0

    return Candidate(place, tuple(columns), blocks, length)


def _candidates(
    place: str, array: NDArray[Any] | StoredArray, options: TableOptions, *, alone: bool = False
) -> list[Candidate]:
    """Return an array with fields, or a table, as a candidate; one that is `alone` may have more columns."""

    def fields(wanted: Sequence[str], start: int, stop: int | None) -> Iterator[tuple[NDArray[Any], ...]]:
        return (tuple(block[name] for name in wanted) for block in _blocks(array, start, stop))

    def rows(wanted: Sequence[str], start: int, stop: int | None) -> Iterator[tuple[NDArray[Any], ...]]:
        return ((upright(block),) for block in _blocks(array, start, stop))

    wide = alone and array.ndim == 2 and array.dtype.kind in "iuf" and 4 < array.shape[1] <= MOST_COLUMNS
    if array.dtype.names or is_table(array, options) or wide:
        blocks = fields if array.dtype.names else rows
        return [Candidate(place, array.dtype.names, blocks, lambda wanted: _length(array))]
    return []


def _blocks(array: NDArray[Any] | StoredArray, start: int, stop: int | None) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array, all at once where it lies in memory."""
    return array.blocks(BLOCK_ROWS, start, stop) if isinstance(array, StoredArray) else iter((array,))


def _length(array: NDArray[Any] | StoredArray) -> int:
    """Return the number of rows of an array any of which can be read alone; 0 where they cannot."""
    return array.length if isinstance(array, StoredArray) and array.seekable else 0
