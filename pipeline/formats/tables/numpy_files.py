"""Events in `.npy` and `.npz` files: columns of usual names, an array with fields, or a table [N,4]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.containers.npy import pickled, read_npy, read_npz
from spikebridge.pipeline.formats.decoded import Decoded
from spikebridge.pipeline.formats.tables.columns import DEFAULT, Candidate, TableOptions, choose, is_table, upright


def decode_npy(path: Path, options: TableOptions = DEFAULT) -> Decoded:
    """Decode an `.npy` file of an array with fields, or of a table [N,4].

    Raises:
        RecordingError: neither is there (`columns`), or as `pipeline.containers.npy` and `columns.choose`.
    """
    array = read_npy(path)
    return choose(_candidates("", array), options, format="npy", source=path.name, found=array.dtype.names or ())


def decode_npz(path: Path, options: TableOptions = DEFAULT, *, content: bytes | None = None) -> Decoded:
    """Decode an `.npz` file of columns, of an array with fields, or of a table [N,4]; other arrays are passed over.

    `content` holds its bytes where it lies inside another file; `path` then only names it.

    Raises:
        RecordingError: no such arrays, or several (`columns`), none but Python objects (`pickle`), or as
            `pipeline.containers.npy` and `columns.choose`.
    """
    objects = list[str]()
    arrays = read_npz(path, objects=objects, content=content)
    groups: dict[str, dict[str, str]] = {}
    for name in arrays:
        group, _, column = name.rpartition("/")
        groups.setdefault(group, {})[column] = name
    candidates = [_group(place, columns, arrays) for place, columns in groups.items()]
    candidates += [one for name, array in arrays.items() for one in _candidates(name, array)]
    try:
        return choose(candidates, options, format="npz", source=path.name, found=arrays)
    except RecordingError as error:
        if objects and error.reason == "columns":
            raise pickled(f"{path.name}, array {objects[0]}") from error
        raise


def _group(place: str, columns: dict[str, str], arrays: dict[str, NDArray[Any]]) -> Candidate:
    """The arrays of a common prefix as named columns."""
    return Candidate(place, tuple(columns), lambda name: arrays[columns[name]])


def _candidates(place: str, array: NDArray[Any]) -> list[Candidate]:
    """An array with fields, or a table, as a candidate."""
    if array.dtype.names:
        return [Candidate(place, array.dtype.names, array.__getitem__)]
    if is_table(array):
        return [Candidate(place, None, lambda _: upright(np.asarray(array)))]
    return []
